"""Logs as JSON, one object a line, on standard output."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_logger = logging.getLogger("inference")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line: time, level, event and the fields given to `log`."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logs() -> None:
    """Send all logs, also those of libraries, through `JsonFormatter`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.captureWarnings(True)


def log(event: str, error: BaseException | None = None, /, **fields: Any) -> None:
    """Write one line; with an error, also its traceback."""
    level = logging.INFO if error is None else logging.ERROR
    _logger.log(level, event, exc_info=error, extra={"fields": fields})
