"""Files that are either the old ones or the new ones, never half of each."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block succeeds.

    When the block fails (a full disk, a signal), `path` keeps its former content and the temporary
    file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, atomically; names that are not UTF-8 come out escaped."""
    write_bytes_atomic(path, text.encode(errors="backslashreplace"))


def json_text(content: Any) -> str:
    """Give `content` as indented JSON with sorted keys."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def write_json_atomic(path: Path, content: Any) -> None:
    """Write `content` to `path` as `json_text`, atomically."""
    write_text_atomic(path, json_text(content))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none, or none that is whole."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
