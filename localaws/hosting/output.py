"""What containers say, on its way to CloudWatch Logs."""

import sys
import threading
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localaws.monitoring.log_events import put_lines


def complain(about: str, error: Exception) -> None:
    """Write to localaws' own log what nobody can be told."""
    print(f"error: {about}: {error}", file=sys.stderr, flush=True)


class Output:
    """A container's output, which goes to CloudWatch Logs."""

    def __init__(self, logs: Any, group: str, stream: str, file: Path) -> None:
        """Send nothing yet.

        Args:
            logs: A client that acts under the model's role.
            group: The log group.
            stream: The stream in it.
            file: What the container writes to.
        """
        self._logs = logs
        self._group = group
        self._stream = stream
        self._file = file
        self._shipped = 0
        self._is_refused = False
        self._lock = threading.Lock()

    def ship(self) -> None:
        """Send what is new."""
        with self._lock:
            with self._file.open("rb") as file:
                file.seek(self._shipped)
                new = file.read()
            self._shipped += len(new)
            lines = new.decode(errors="replace").split("\n")
            try:
                put_lines(self._logs, self._group, self._stream, lines)
            except (BotoCoreError, ClientError) as error:
                if not self._is_refused:
                    complain(self._group, error)
                self._is_refused = True
