"""The EC2 metadata service, as far as it tells that a spot instance is taken away.

On AWS it answers at 169.254.169.254, to each instance about itself. Here instances share a machine:
each has an address of its own, which `AWS_EC2_METADATA_SERVICE_ENDPOINT` names, as SDKs take it.
All other pages are 404.

Source: EC2's user guide, "Use the Instance Metadata Service" (version 2: a token, then a page) and
"Spot Instance interruption notices".
"""

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from localaws.loopback import GuardedRequests, LoopbackServer
from localaws.processes import Running

_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_LONGEST_SECONDS = 21600
_PAGES = "/latest/meta-data/"


class Metadata(Running):
    """One server for all instances."""

    def __init__(self, taken_at: Callable[[str], float | None]) -> None:
        """Start it.

        Args:
            taken_at: Gives the time at which a spot instance is taken away, by its id; None while
                nobody wants it.
        """
        tokens: set[str] = set()

        class Answering(GuardedRequests):
            def do_PUT(self) -> None:
                self.body()
                seconds = self.headers.get(_TTL, "")
                if not self.path.endswith("/latest/api/token"):
                    self.answer(404, b"", {})
                elif not (seconds.isdecimal() and 0 < int(seconds) <= _LONGEST_SECONDS):
                    self.answer(400, b"", {})
                else:
                    token = secrets.token_urlsafe(32)
                    tokens.add(token)
                    self.answer(200, token.encode(), {_TTL: seconds})

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") not in tokens:
                    self.answer(401, b"", {})
                    return
                instance, _, page = self.path.lstrip("/").partition(_PAGES)
                told = _page(page, instance, taken_at(instance))
                self.answer(200 if told else 404, told.encode(), {"Content-Type": "text/plain"})

        self._server = LoopbackServer(Answering)

    def address(self, instance: str) -> str:
        """Where an instance asks about itself."""
        return f"http://{self._server.address}/{instance}"

    def stop(self) -> None:
        """End it."""
        self._server.stop()


def _page(page: str, instance: str, taken_at: float | None) -> str:
    """A page's content; empty where there is no such page."""
    if page == "instance-id":
        return instance
    if taken_at is None:
        return ""
    time = datetime.fromtimestamp(taken_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pages: dict[str, Any] = {
        "spot/instance-action": json.dumps({"action": "terminate", "time": time}),
        "spot/termination-time": time,
    }
    return str(pages.get(page, ""))
