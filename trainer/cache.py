"""Decode once: photos as uint8 pixels in one memory-mapped file, found by their content.

There is one store for each size, interpolation and decoder. It is a folder with

- `pixels.bin`: the pixels of photo after photo, only ever appended to;
- `index.sqlite`: what each content (SHA-256) became, and which content each file last held.

The index is committed after the pixels have reached the disk. A crash in between leaves bytes that
no entry points to, and the next run overwrites them. Nothing is taken out: to free the space of
photos long gone, delete the folder.

Disks and power cuts may change what was written, without a word and without another length: each
row of the index has a checksum, and one of its photo's pixels. They are compared when the store is
opened, the pixels for the photos that are asked for. A damaged store is built anew.
"""

import hashlib
import logging
import os
import sqlite3
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray

from inference.preprocess import DECODER_VERSION, ImageError, decode_noted, resize_shorter
from trainer.errors import KennelError
from trainer.lock import locked
from trainer.progress import progress
from trainer.sqlite_faults import is_of_its_place

MAX_FILE_BYTES = 256 * 1024**2
COMMIT_BYTES = 64 * 1024**2

_CHANNELS = 3
_ENTRY = "sha256, offset, height, width, pixels_crc32, note, reason"
_INDEX = "index.sqlite"
_PIXELS = "pixels.bin"
_SCHEMA = """
BEGIN;
CREATE TABLE content (
    sha256 TEXT PRIMARY KEY, offset INTEGER, height INTEGER, width INTEGER, pixels_crc32 INTEGER,
    note TEXT, reason TEXT, row_crc32 INTEGER
) WITHOUT ROWID;
CREATE TABLE stamped (
    path BLOB PRIMARY KEY,
    size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, sha256 TEXT
) WITHOUT ROWID;
COMMIT;
"""

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Photo:
    """A decoded photo: where its uint8 [height, width, 3] pixels lie, and how it was converted."""

    sha256: str
    offset: int
    height: int
    width: int
    crc32: int
    note: str | None

    @property
    def end(self) -> int:
        """Offset in bytes of the first byte after the photo."""
        return self.offset + self.nbytes

    @property
    def nbytes(self) -> int:
        """Number of bytes of the pixels."""
        return self.height * self.width * _CHANNELS


@dataclass(frozen=True)
class Refused:
    """A file that gives no photo, and why."""

    reason: str


class CachedImages:
    """Read-only pixels of photos of a store; a pickled copy maps the same file."""

    def __init__(self, pixels: Path, photos: Sequence[Photo]) -> None:
        self._path = pixels
        self._photos = tuple(photos)
        self._bytes: NDArray[np.uint8] = np.memmap(pixels, dtype=np.uint8, mode="r").view(
            np.ndarray
        )

    def __len__(self) -> int:
        """Number of photos."""
        return len(self._photos)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Photo `index` as a uint8 [height, width, 3] view of the memory map."""
        photo = self._photos[index]
        pixels = self._bytes[photo.offset : photo.end]
        return pixels.reshape(photo.height, photo.width, _CHANNELS)

    def __reduce__(self) -> tuple[type["CachedImages"], tuple[Path, tuple[Photo, ...]]]:
        """Pickle the places of the photos, not their pixels."""
        return CachedImages, (self._path, self._photos)


class _Stamp(NamedTuple):
    """What tells, without opening a file, that its content is what it was.

    Archives and `cp -p` set size and `mtime` as they like; `ctime` is the system's own.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "_Stamp":
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@dataclass(frozen=True)
class _Decoded:
    pixels: NDArray[np.uint8]
    note: str | None


@dataclass(frozen=True)
class _Reading:
    """What reading a file once gave; a `Photo` when the store held its content already."""

    stamp: _Stamp
    sha256: str
    outcome: _Decoded | Photo | Refused


def decode_once(
    paths: Sequence[Path],
    cache_dir: Path,
    resize: int,
    interpolation: str,
    workers: int | None = None,
) -> tuple[Path, list[Photo | Refused]]:
    """Find each file's pixels in the store, reading and decoding only what is new or has changed.

    Processes that call this at the same time take turns, and the later ones find the work done.

    Args:
        paths: Files; each gives the entry at its place in the answer.
        cache_dir: Folder that holds the stores, made if missing.
        resize: Length in pixels of a photo's shorter side.
        interpolation: "bilinear" or "bicubic".
        workers: Decoding threads; as many as processors, at most 8, when None.

    Returns:
        The file of pixels and an entry for each path.

    Raises:
        KennelError: The store cannot be written (a full disk, for one); what it held stays usable.
    """
    decoder = f"decoder{DECODER_VERSION}-pillow{PIL.__version__}"
    folder = cache_dir / f"{resize}-{interpolation}-{decoder}"

    def decode(body: bytes) -> _Decoded:
        pixels, note = decode_noted(body, resize)
        return _Decoded(resize_shorter(pixels, resize, interpolation), note)

    def find() -> list[Photo | Refused]:
        with closing(_open_index(folder)) as index:
            entries = [_known_file(index, path) for path in paths]
            new = [place for place, entry in enumerate(entries) if entry is None]
            if new:
                added = _add(folder, index, [paths[place] for place in new], decode, workers)
                for place, entry in zip(new, added, strict=True):
                    entries[place] = entry
        return [entry for entry in entries if entry is not None]

    try:
        with locked(folder):
            entries = find()
        # Not in turns, as it takes longest.
        if not _are_whole(folder, entries):
            with locked(folder):
                entries = find()  # another process may have mended it by now
                if not _are_whole(folder, entries):
                    _drop(folder)
                    entries = find()
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise KennelError(
            f"cannot write the image cache in {folder}: {reason}; "
            "free some space or choose another cache folder"
        ) from error
    return folder / _PIXELS, entries


def _open_index(folder: Path) -> sqlite3.Connection:
    """Open the index; a damaged one, or one whose pixels are gone, is dropped with its pixels.

    Raises:
        KennelError: A folder is in a file's place.
    """
    for path in (folder / _PIXELS, folder / _INDEX):
        if path.is_dir():
            raise KennelError(f"{path} is a folder where the image cache keeps a file: remove it")
    (folder / _PIXELS).touch()
    index = sqlite3.connect(folder / _INDEX)
    if _is_whole(index, folder):
        return index
    index.close()
    _drop(folder)
    (folder / _PIXELS).touch()
    index = sqlite3.connect(folder / _INDEX)
    index.executescript(_SCHEMA)
    return index


def _drop(folder: Path) -> None:
    """Remove a store's files; who has mapped its pixels keeps what it has."""
    _log.warning("the image cache in %s is damaged, or of another version: built anew", folder)
    for file in folder.iterdir():
        file.unlink()


def _is_whole(index: sqlite3.Connection, folder: Path) -> bool:
    """Whether the index is what was written, and its pixels are all there; a new one is made."""
    try:
        index.execute("BEGIN IMMEDIATE")  # a damaged one may forbid to write
        index.rollback()
        if not _tables(index):
            if (folder / _PIXELS).stat().st_size:  # of an index that is gone; some may map them
                return False
            index.executescript(_SCHEMA)
        with closing(sqlite3.connect(":memory:")) as expected:
            expected.executescript(_SCHEMA)
            if _tables(index) != _tables(expected):
                return False
        rows = index.execute(f"SELECT {_ENTRY}, row_crc32 FROM content")  # noqa: S608
        return (
            index.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            and all(_row_crc32(row[:-1]) == row[-1] for row in rows)
            and _end(index) <= (folder / _PIXELS).stat().st_size
        )
    except sqlite3.Error as error:
        if is_of_its_place(error, folder / _INDEX):
            raise
        return False
    except UnicodeDecodeError:  # SQLite's error quotes what is damaged
        return False


def _tables(index: sqlite3.Connection) -> list[tuple[str, ...]]:
    return index.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()


def _are_whole(folder: Path, entries: Iterable[Photo | Refused]) -> bool:
    """Whether the pixels of all photos are what was written."""
    photos = {entry for entry in entries if isinstance(entry, Photo)}
    in_order = sorted(photos, key=lambda photo: photo.offset)
    threads = min(8, os.cpu_count() or 1)
    share = -(-len(in_order) // threads) or 1
    shares = [in_order[start : start + share] for start in range(0, len(in_order), share)]
    with ThreadPoolExecutor(threads) as pool:
        return all(pool.map(lambda some: _holds(folder / _PIXELS, some), shares))


def _holds(pixels: Path, photos: Sequence[Photo]) -> bool:
    """Whether the pixels of some photos are what was written, read as a bad disk can refuse."""
    buffer = memoryview(bytearray(max(photo.nbytes for photo in photos)))
    try:
        with pixels.open("rb", buffering=0) as file:
            for photo in photos:
                file.seek(photo.offset)
                read = buffer[: file.readinto(buffer[: photo.nbytes])]
                if zlib.crc32(read) != photo.crc32:
                    return False
    except OSError:
        return False
    return True


def _end(index: sqlite3.Connection) -> int:
    """Bytes of `pixels.bin` that the index points to."""
    query = "SELECT coalesce(max(offset + height * width * ?), 0) FROM content"
    (end,) = index.execute(query, (_CHANNELS,)).fetchone()
    return int(end)


def _known_file(index: sqlite3.Connection, path: Path) -> Photo | Refused | None:
    try:
        stamp = _Stamp.of(path.stat())
    except OSError:
        return None
    row = index.execute(
        f"SELECT {_ENTRY} FROM stamped JOIN content USING (sha256) "  # noqa: S608
        "WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?",
        (_key(path), *stamp),
    ).fetchone()
    return row and _entry(*row)


def _known_contents(index: sqlite3.Connection) -> dict[str, Photo | Refused]:
    rows = index.execute(f"SELECT {_ENTRY} FROM content")  # noqa: S608
    return {row[0]: _entry(*row) for row in rows}


def _entry(
    sha256: str,
    offset: int,
    height: int,
    width: int,
    crc32: int,
    note: str | None,
    reason: str | None,
) -> Photo | Refused:
    if reason is not None:
        return Refused(reason)
    return Photo(sha256, offset, height, width, crc32, note)


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _add(
    folder: Path,
    index: sqlite3.Connection,
    paths: Sequence[Path],
    decode: Callable[[bytes], _Decoded],
    workers: int | None,
) -> list[Photo | Refused]:
    """Read the files, append what the store lacks and give an entry for each."""
    known = _known_contents(index)
    threads = workers or min(8, os.cpu_count() or 1)
    committed = _end(index)
    entries = []
    try:
        with (
            (folder / _PIXELS).open("r+b") as pixels,
            ThreadPoolExecutor(threads) as pool,
            progress("decoding", len(paths), "photos") as count,
        ):
            pixels.seek(committed)
            readings = _map_ahead(pool, lambda path: _read(path, known, decode), paths, 2 * threads)
            for path, reading in zip(paths, readings, strict=True):
                entries.append(_record(pixels, index, path, reading, known))
                if pixels.tell() - committed >= COMMIT_BYTES:
                    committed = _commit(pixels, index)
                count(1)
            committed = _commit(pixels, index)
    finally:
        os.truncate(folder / _PIXELS, committed)
    return entries


def _map_ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    ahead: int,
) -> Iterator[_Result]:
    """Map in order, with at most `ahead` results waiting, so that memory stays bounded."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(
    path: Path, known: Mapping[str, Photo | Refused], decode: Callable[[bytes], _Decoded]
) -> _Reading | Refused:
    """Read a file once: the same bytes are hashed and, if their content is new, decoded."""
    try:
        with path.open("rb") as file:
            stamp = _Stamp.of(os.fstat(file.fileno()))
            if stamp.size > MAX_FILE_BYTES:
                return Refused(f"larger than {MAX_FILE_BYTES // 1024**2} MiB")
            body = file.read(MAX_FILE_BYTES)
    except OSError as error:
        return Refused(f"cannot be read: {error.strerror}")
    sha256 = hashlib.sha256(body).hexdigest()
    if sha256 in known:
        return _Reading(stamp, sha256, known[sha256])
    try:
        return _Reading(stamp, sha256, decode(body))
    except ImageError as error:
        return _Reading(stamp, sha256, Refused(str(error)))


def _record(
    pixels: BufferedRandom,
    index: sqlite3.Connection,
    path: Path,
    reading: _Reading | Refused,
    known: dict[str, Photo | Refused],
) -> Photo | Refused:
    if isinstance(reading, Refused):
        return reading
    sha256 = reading.sha256
    entry = known.get(sha256, reading.outcome)
    if isinstance(entry, _Decoded):
        entry = _append(pixels, sha256, entry)
    if sha256 not in known:
        known[sha256] = entry
        row = _row(sha256, entry)
        index.execute(
            "INSERT INTO content VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, _row_crc32(row))
        )
    index.execute(
        "INSERT OR REPLACE INTO stamped VALUES (?, ?, ?, ?, ?, ?)",
        (_key(path), *reading.stamp, sha256),
    )
    return entry


def _append(pixels: BufferedRandom, sha256: str, decoded: _Decoded) -> Photo:
    height, width, _ = decoded.pixels.shape
    content = np.ascontiguousarray(decoded.pixels).data
    crc32 = zlib.crc32(content)
    photo = Photo(sha256, pixels.tell(), height, width, crc32, decoded.note)
    pixels.write(content)
    return photo


def _row(sha256: str, entry: Photo | Refused) -> tuple[str | int | None, ...]:
    if isinstance(entry, Refused):
        return sha256, None, None, None, None, None, entry.reason
    return sha256, entry.offset, entry.height, entry.width, entry.crc32, entry.note, None


def _row_crc32(row: tuple[str | int | None, ...]) -> int:
    return zlib.crc32(repr(row).encode())


def _commit(pixels: BufferedRandom, index: sqlite3.Connection) -> int:
    """Make everything appended so far last, pixels first; give the store's length in bytes."""
    pixels.flush()
    os.fsync(pixels.fileno())
    index.commit()
    return pixels.tell()
