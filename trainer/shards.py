"""Shards: a data folder as a few tar files, since thousands of small files travel slowly.

The tar files hold the photos' files byte for byte, and no time or owner: the same photos give the
same shards on every machine. `manifest.json` names the shards; what it does not name does not
count. `trainer.dataset.load` takes a folder of shards for the data folder that it was made from.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from inference.preprocess import ImageError, decode_rgb
from trainer.disk import require_room
from trainer.errors import KennelError
from trainer.files import json_text
from trainer.progress import progress
from trainer.workspace import NEW, replacing_folder

MANIFEST = "manifest.json"
SHARD_BYTES = 128 * 1024**2
"""Most bytes of photos in a shard, unless one file alone has more."""

_FORMAT = 1
_READ_BYTES = 64 * 1024
_CHECKED_SIZE = 256
_END = bytes(2 * tarfile.BLOCKSIZE)


class ShardError(KennelError):
    """A folder of shards is not whole.

    Attributes:
        path: The missing or damaged file.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Shard:
    """A tar file of photos of one split.

    Attributes:
        file: Its name beside the manifest.
        split: The split.
        sha256: Of the tar file.
        bytes: Of the tar file.
        images: How many of its files are readable photos.
        skipped: Paths of the other files, which are carried along for the data report to name.
    """

    file: str
    split: str
    sha256: str
    bytes: int
    images: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
        generation: Counts the changes of a data set in a bucket.
        contents: SHA-256 of all paths and contents, however they are cut into shards.
        fingerprint: `trainer.dataset`'s fingerprint of all splits.
        classes: Names of the class folders, sorted.
        source: The data folder's `source.json`, if it has one.
        shards: The tar files.
    """

    generation: int
    contents: str
    fingerprint: str
    classes: tuple[str, ...]
    source: Any
    shards: tuple[Shard, ...]

    @property
    def images(self) -> dict[str, int]:
        """Number of photos in each split."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.images
        return counts

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def to_text(self) -> str:
        """Give the content of `manifest.json`."""
        return json_text({"format": _FORMAT, "images": self.images, **asdict(self)})


def read_manifest(text: str | bytes, place: str | Path) -> Manifest:
    """Read the content of a `manifest.json`.

    Args:
        text: The content.
        place: Where it lies, for the error.

    Raises:
        ShardError: It is damaged or of another version.
    """
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise ShardError(
                f"{place} has format {content['format']}, and this version of Kennel reads format "
                f"{_FORMAT}: upload the data again with this version, or use the newer one"
            )
        shards = tuple(
            Shard(**shard | {"skipped": tuple(shard["skipped"])}) for shard in content["shards"]
        )
        names = [content["contents"], *content["classes"], *(shard.file for shard in shards)]
        if any(PurePosixPath(name).name != name for name in names):
            raise ValueError("a name leads to another folder")
        return Manifest(
            content["generation"],
            content["contents"],
            content["fingerprint"],
            tuple(content["classes"]),
            content["source"],
            shards,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{place} is damaged ({error!r}): upload the data again") from error


def partition(sizes: Mapping[str, int], limit: int) -> list[tuple[str, ...]]:
    """Group files into shards of at most `limit` bytes, each about as large as the others.

    A group whose files are too many is halved by the next bit of their paths' hashes. So a file's
    shard depends on its path, and only the shard of a file that was changed, added or removed
    changes, as long as that shard does not become too large, or two that were one so small that
    they are one again. Each shard holds all classes.

    Args:
        sizes: Size in bytes of each file, by its path.
        limit: Most bytes in a group of several files.

    Returns:
        Groups of sorted paths.
    """
    hashes = {
        path: int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
        for path in sizes
    }

    def split(paths: list[str], bit: int) -> Iterator[tuple[str, ...]]:
        if len(paths) > 1 and sum(sizes[path] for path in paths) > limit:
            for value in (0, 1):
                yield from split([p for p in paths if hashes[p] >> bit & 1 == value], bit - 1)
        elif paths:
            yield tuple(paths)

    return list(split(sorted(sizes), bit=255))


@dataclass(frozen=True)
class Group:
    """Files of a data folder that make a shard.

    Attributes:
        split: Their split.
        digests: SHA-256 of each file, by its path.
        sha256: Of the tar file that `pack` writes.
        bytes: Of that tar file.
    """

    split: str
    digests: Mapping[str, str]
    sha256: str
    bytes: int


def describe(root: Path, split: str, files: Sequence[str]) -> Group:
    """Read files as `pack` does, and hash them.

    Raises:
        KennelError: One cannot be read.
    """
    tar, length = hashlib.sha256(), 0
    digests = {}
    for file in files:
        body = _read(root / file)
        digests[file] = hashlib.sha256(body).hexdigest()
        part = _member(file, body)
        tar.update(part)
        length += len(part)
    tar.update(_END)
    return Group(split, digests, tar.hexdigest(), length + len(_END))


def pack(root: Path, group: Group, output: BinaryIO) -> None:
    """Write the tar file of a group.

    Raises:
        KennelError: A file has changed since `describe`, or cannot be read.
    """
    for file, digest in group.digests.items():
        body = _read(root / file)
        if hashlib.sha256(body).hexdigest() != digest:
            raise KennelError(f"{root / file} changes while it is read: try again")
        output.write(_member(file, body))
    output.write(_END)


def is_photo(path: Path) -> bool:
    """Whether a file can be decoded, and so counts as a photo.

    Raises:
        KennelError: It cannot be read.
    """
    try:
        decode_rgb(_read(path), _CHECKED_SIZE)
    except ImageError:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KennelError(f"cannot read {path}: {error.strerror}; mend or remove it") from error


def _member(path: str, body: bytes) -> bytes:
    """Give a file as a part of a tar file; nothing in it but path and content varies."""
    info = tarfile.TarInfo(path)
    info.size = len(body)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return b"".join([header, body, bytes(-len(body) % tarfile.BLOCKSIZE)])


def unpack(folder: Path, shards: Sequence[Shard], destination: Path) -> None:
    """Unpack shards below `destination`; each is read once, from its beginning to its end.

    Raises:
        ShardError: A shard is missing or damaged; what was unpacked of it must not be used.
        OSError: `destination` cannot be written.
    """
    total = sum(shard.bytes for shard in shards)
    require_room(destination, total)
    with progress("unpacking", total, "B") as count:
        for shard in shards:
            _unpack(folder / shard.file, shard, destination)
            count(shard.bytes)


def dataset_name(folder: Path) -> str:
    """Give what a data set is called: of photos as their folder, of shards as what they are from.

    A folder of shards has a name of its own only by chance: in a job it is that of the channel.

    Returns:
        The name; "" for shards of an unknown origin.

    Raises:
        ShardError: The manifest is damaged.
    """
    place = folder / MANIFEST
    if not place.is_file() or (folder / "train").is_dir():
        return folder.resolve().name
    match read_manifest(_read(place), place).source:
        case {"source": {"dataset": str(given)} | {"folder": str(given)}}:
            return PurePosixPath(given).name
    return ""


def unpacked(folder: Path, cache_dir: Path, splits: Sequence[str]) -> Path:
    """Give the data folder of a folder of shards, unpacked once; any other folder is its own.

    Of the splits not asked for, no photo is unpacked or read. Processes that call this at the same
    time take turns, and the later ones find the work done.

    Args:
        folder: A folder that may hold a manifest.
        cache_dir: The data folder is made in its folder `unpacked`, and stays there until the cache
            is deleted.
        splits: The splits to unpack.

    Raises:
        ShardError: The manifest or a shard is missing or damaged.
        KennelError: The cache cannot be written.
    """
    place = folder / MANIFEST
    if not place.is_file() or (folder / "train").is_dir():
        return folder
    manifest = read_manifest(_read(place), place)
    # The fingerprint would not do: it leaves out the names, and so the photos' order.
    output = cache_dir / "unpacked" / f"{manifest.contents[:16]}-{'-'.join(sorted(splits))}"
    try:
        if not output.exists():
            with replacing_folder(output) as workspace:
                if not output.exists():
                    make_folder(folder, manifest, splits, workspace / NEW)
    except OSError as error:
        raise KennelError(
            f"cannot unpack {folder} to {output}: {error.strerror}; "
            "free some space or choose another cache folder"
        ) from error
    return output


def make_folder(folder: Path, manifest: Manifest, splits: Sequence[str], new: Path) -> None:
    """Make the data folder `new` of some splits, with the names of all classes.

    Raises:
        ShardError: A shard is missing or damaged.
        OSError: `new` cannot be written.
    """
    for split in splits:
        (new / split).mkdir(parents=True)
    for name in manifest.classes:
        (new / "train" / name).mkdir(parents=True, exist_ok=True)
    unpack(folder, [shard for shard in manifest.shards if shard.split in splits], new)


class _Hashed(io.RawIOBase):
    """A file that is read once, and hashed on the way."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sha256.update(data)
        return data

    def finish(self) -> str:
        """Read to the end and give the SHA-256."""
        while self.read(_READ_BYTES):
            pass
        return self._sha256.hexdigest()


def _unpack(path: Path, shard: Shard, destination: Path) -> None:
    try:
        source = path.open("rb")
    except OSError as error:
        raise ShardError(
            f"{path}, which {MANIFEST} names, cannot be read ({error.strerror}): copy the folder "
            "again; if it is not in the bucket either, upload the data again",
            path,
        ) from error
    with source:
        hashed = _Hashed(source)
        fault: Exception | str | None = None
        try:
            _extract(hashed, shard.split, destination)
        except (tarfile.TarError, EOFError, ValueError) as error:
            fault = error
        if hashed.finish() != shard.sha256:
            fault = f"its SHA-256 is not {shard.sha256}"
    if fault:
        raise ShardError(
            f"{path} is damaged ({fault}): copy it again; if it is damaged in the bucket too, "
            "delete it there and upload the data again",
            path,
        )


def _extract(file: _Hashed, split: str, destination: Path) -> None:
    # A stream is read once from beginning to end, as a mounted bucket likes best.
    with tarfile.open(fileobj=file, mode="r|", bufsize=_READ_BYTES) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            content = tar.extractfile(member) if member.type == tarfile.REGTYPE else None
            if not content or member.issparse() or parts[:1] != (split,) or ".." in parts:
                raise tarfile.TarError(f"{member.name!r} does not belong in it")
            place = destination.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            with content, place.open("wb") as target:
                shutil.copyfileobj(content, target)
