"""A localaws with the door that only moto's tests have: `/moto-api`, which empties the account.

`python door.py` takes what `python -m localaws.server` takes.
"""

from collections.abc import Iterable
from typing import Any

from moto.ec2.models import ec2_backends

from localaws import application, execution, server

_PAGES = "/moto-api"


class _Open(application.Application):
    """localaws, and moto's own pages."""

    _is_touched = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith(_PAGES):
            self._is_touched |= not path.startswith(application.OWN)
            return super().__call__(environ, start_response)
        if path != f"{_PAGES}/reset":
            return self._moto(environ, start_response)
        # Each test asks for it twice.
        if not self._is_touched:
            start_response("200 OK", [])
            return []
        self._is_touched = False
        executions = execution._current
        if executions:
            executions.stop()
            executions._of_region.clear()
        self._answers.clear()
        with self.changing():
            # moto would first make them anew, with a thousand images each, and then forget them.
            for regions in ec2_backends.values():
                regions.clear()
            emptied = self._moto(environ, start_response)
        # What runs in a region is made again when it is asked for.
        execution._current = executions
        return emptied


if __name__ == "__main__":
    application.Application = _Open  # type: ignore[misc]
    server.main()
