"""Download one large file over HTTP: resumed after a break, its size checked."""

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from trainer.disk import require_room
from trainer.errors import KennelError, UsageError
from trainer.files import write_json_atomic
from trainer.progress import progress

MAX_BYTES = 8 * 1024**3
MAX_TRIES = 4
PAUSE_S = 0.5
TIMEOUT_S = (10.0, 60.0)  # to connect, between two reads

_CHUNK_BYTES = 1024**2
_TEMPORARY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _BrokenError(Exception):
    """The server or the line failed; another try may go better."""


@dataclass(frozen=True)
class _Version:
    """The state of the remote file that a partial one belongs to; `total` is its size in bytes."""

    url: str
    validator: str | None
    total: int | None


def download(url: str, destination: Path) -> None:
    """Fetch `url` to `destination`; after a break it goes on where it stopped, in a later run too.

    Until the file is whole it lies beside `destination`, with the ending ".part".

    Raises:
        UsageError: The address is not http or https.
        KennelError: The server cannot be reached, refuses or breaks off again and again, or the
            disk is too small. What has arrived is kept for the next run.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url} is not an http or https address")
    part = destination.with_name(f"{destination.name}.part")
    farthest = tries = 0
    while True:
        try:
            _fetch_rest(url, part)
            break
        except (_BrokenError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            # Only bytes beyond the farthest point count as progress: a file that changes between
            # two tries would be begun again for ever.
            arrived = _size(part)
            tries = 1 if arrived > farthest else tries + 1
            farthest = max(farthest, arrived)
            if tries == MAX_TRIES:
                raise KennelError(f"cannot download {url}: {_cause(error)}") from error
            time.sleep(PAUSE_S * 2 ** (tries - 1))
        except OSError as error:
            raise KennelError(f"cannot write {part}: {error.strerror}") from error
    part.replace(destination)
    _version_file(part).unlink(missing_ok=True)


def _fetch_rest(url: str, part: Path) -> None:
    """Ask for what `part` lacks and append it; a file that has changed is begun again."""
    version = _read_version(part)
    known = version is not None and version.url == url and version.validator
    start = _size(part) if known else 0
    headers = {"Accept-Encoding": "identity"}
    if version and start:
        if start == version.total:
            return
        headers |= {"Range": f"bytes={start}-", "If-Range": str(version.validator)}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        start, now = _accept(url, response, start)
        if start and now != version:
            part.unlink()
            raise _BrokenError("the file changed on the server")
        if now.total and now.total > MAX_BYTES:
            raise KennelError(f"{url} has {now.total:,} bytes, more than {MAX_BYTES:,}")
        require_room(part.parent, (now.total or 0) - start)
        write_json_atomic(_version_file(part), asdict(now))
        _receive(response, part, start, now.total)


def _accept(url: str, response: requests.Response, start: int) -> tuple[int, _Version]:
    """Read an answer's head: where its body starts in the file, and which version it is of."""
    status, headers = response.status_code, response.headers
    if status in _TEMPORARY_STATUS:
        raise _BrokenError(f"the server answers {status} {response.reason}")
    total: int | None = None
    if status == 200:
        start = 0
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    elif status == 206 and start:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if span is None or int(span[1]) != start:
            raise _BrokenError("the server sends another part than the one asked for")
        total = int(span[2])
    else:
        raise KennelError(f"cannot download {url}: the server answers {status} {response.reason}")
    # RFC 9110, 13.1.5: a weak tag must not be used to resume.
    tag = headers.get("ETag", "")
    return start, _Version(url, tag if tag.startswith('"') else headers.get("Last-Modified"), total)


def _receive(response: requests.Response, part: Path, start: int, total: int | None) -> None:
    limit = MAX_BYTES if total is None else total
    arrived = start
    with (
        part.open("ab" if start else "wb") as file,
        progress(f"downloading {part.stem}", total, "B", start) as count,
    ):
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            file.write(chunk)
            arrived += len(chunk)
            count(len(chunk))
            if arrived > limit:
                break
    if arrived > limit:
        part.unlink()
        raise _BrokenError(f"the server sends more than {limit:,} bytes")
    if total is not None and arrived < total:
        raise _BrokenError(f"only {arrived:,} of {total:,} bytes arrived")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_version(part: Path) -> _Version | None:
    try:
        return _Version(**json.loads(_version_file(part).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _cause(error: BaseException) -> str:
    """Give the first cause in one line: the outer errors repeat addresses and object names."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__
