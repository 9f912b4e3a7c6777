"""The model archive: written byte for byte the same, opened only when every digest is right."""

import atexit
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from inference.preprocess import Preprocess
from inference.tar import FILE, FOLDER, LINK, OTHER, members

FORMAT = 1
MANIFEST = "manifest.json"
MODEL_FILES = (
    "config.json",
    "labels.json",
    "metrics.json",
    "model.onnx",
    "preprocess.json",
    "weights.safetensors",
)
ALL_FILES = tuple(sorted((*MODEL_FILES, MANIFEST)))

_MAX_JSON_BYTES = 16 * 2**20
_MAX_NETWORK_BYTES = 2**31  # the limit of ONNX's own format
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_PRECISIONS = ("int8", "fp32")
_READ_BY_OTHERS = ("config.json", "metrics.json")  # by evaluation, registry and comparison
_GZIP_MAGIC = b"\x1f\x8b"
# What comes in its place: bytes, where they stand, what they tell.
_STRANGERS = (
    (b"ustar", 257, "a tar without compression"),
    (b"BZh", 0, "packed by bzip2"),
    (b"\xfd7zXZ", 0, "packed by xz"),
    (b"\x28\xb5\x2f\xfd", 0, "packed by zstd"),
    (b"PK", 0, "a zip file, or what torch.save writes"),
    (b"version https://git-lfs", 0, "a pointer of Git LFS"),
    (b"<", 0, "a web page or XML"),
)
# The classic SageMaker containers keep the handler's code beside the model; nothing is read there.
_CODE = "code"
_MAX_CODE_BYTES = 2**31
_MAX_CODE_FILES = 100_000
_PACK = "`tar czf model.tar.gz -C FOLDER .`"
_NO_LINKS = "put the file itself there (`tar czhf ... --hard-dereference` does it for links)"
_MODES = {FILE: stat.S_ISREG, FOLDER: stat.S_ISDIR}


class ArchiveError(Exception):
    """A model folder or archive is damaged, incomplete or holds what it must not."""


@dataclass(frozen=True)
class Model:
    """A verified, unpacked model.

    Attributes:
        folder: Where its files lie.
        manifest: The content of `manifest.json`.
        digest: SHA-256 (hex) of `manifest.json`, and so of the whole model.
        name: The model's name in AWS; it carries the first 12 digits of the digest.
        labels: Class names in the order of the network's outputs.
        preprocess: The network's input transform.
    """

    folder: Path
    manifest: Mapping[str, Any]
    digest: str
    name: str
    labels: tuple[str, ...]
    preprocess: Preprocess

    @property
    def onnx(self) -> Path:
        """The network's file."""
        return self.folder / "model.onnx"


def open_model(path: Path, workdir: Path | None = None) -> Model:
    """Verify a model and, if it is an archive, unpack it.

    Args:
        path: An unpacked model's folder, or a `model.tar.gz`.
        workdir: Where an archive is unpacked, in a new folder that is removed when the process
            ends; by default the system's folder for temporary files.

    Raises:
        ArchiveError: Anything is missing, superfluous, altered, too large or no regular file.
    """
    if not path.exists():
        raise ArchiveError(f"{path}: there is no such file or folder")
    folder = path if path.is_dir() else _new_folder(workdir)
    try:
        if folder != path:
            _unpack(path, folder)
        return _verified(folder)
    except (ArchiveError, OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        if folder != path:
            shutil.rmtree(folder)
        raise ArchiveError(f"{path}: not a sound model: {error}{_way_out(error)}") from error


def _way_out(error: Exception) -> str:
    """What to do about what a reader of archives objects to; other errors say it themselves."""
    if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error):
        return "; it is damaged or cut short: copy it again"
    if isinstance(error, tarfile.TarError):
        return f": it holds no tar, or a damaged one: pack it with {_PACK}"
    return ""


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Give the manifest's entry `files`: each model file's SHA-256 (hex) and its bytes.

    Raises:
        ArchiveError: A file is missing.
    """
    return {name: _describe(folder / name) for name in MODEL_FILES}


def write_archive(folder: Path, destination: Path) -> None:
    """Pack a model folder; equal files give equal bytes, and a failure leaves no trace.

    Args:
        folder: Holds `MODEL_FILES` and the manifest; other files are left out.
        destination: The `model.tar.gz` to write or replace.

    Raises:
        ArchiveError: A file is missing or is not what the manifest says.
    """
    _check_digests(folder, _read_json(folder / MANIFEST))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=destination.parent, prefix=f".{destination.name}.", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            _pack(folder, file)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(destination)
        except BaseException:
            temporary.unlink()
            raise


def _pack(folder: Path, file: IO[bytes]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in ALL_FILES:
            member = tarfile.TarInfo(name)  # its defaults: no owner, time 0, mode 0644
            member.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as content:
                tar.addfile(member, content)


def _new_folder(workdir: Path | None) -> Path:
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="kennel-model-", dir=workdir))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Contents:
    """What a model may hold, the same for a folder and for an archive."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._code_bytes = 0

    def admit(self, name: str, kind: str, size: int, target: str = "") -> bool:
        """Judge an entry by its name, kind and target (as in `inference.tar`) and bytes.

        Returns:
            Whether it is a file of the model; others are tolerated.

        Raises:
            ArchiveError: The entry must not be there.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ArchiveError(f"{name!r} leads out of the model: pack with {_PACK}")
        if str(path) in self._seen:
            raise ArchiveError(f"{name!r} is there twice")
        source = PurePosixPath(target)
        if kind == LINK and source.parts[:1] == (_CODE,) and str(source) in self._seen:
            kind = FILE  # as it is in the folder that was packed
        self._seen.add(str(path))
        if path.parts[:1] == (_CODE,):
            if kind not in (FILE, FOLDER) or (str(path) == _CODE and kind != FOLDER):
                raise ArchiveError(
                    f"{name!r} is not a regular file, or not in the folder {_CODE}: {_NO_LINKS}"
                )
            self._code_bytes += size
            if self._code_bytes > _MAX_CODE_BYTES or len(self._seen) > _MAX_CODE_FILES:
                raise ArchiveError(f"the folder {_CODE} is too large")
            return False
        if not path.parts and kind == FOLDER:  # "./", as plain tar packs it
            return False
        if str(path) not in ALL_FILES:
            raise ArchiveError(f"{name!r} is no file of a model{_remedy(path, kind)}")
        if kind != FILE:
            raise ArchiveError(f"{name!r} is not a regular file: {_NO_LINKS}")
        _check_bytes(name, size)
        return True


def _remedy(path: PurePosixPath, kind: str) -> str:
    if path.name.startswith("._"):
        return ", but a companion of macOS: pack it with `COPYFILE_DISABLE=1 tar czf ...`"
    if kind == FOLDER or len(path.parts) > 1:
        return f": those lie at the top, so remove it, or pack with {_PACK}"
    return ": remove it"


def _unpack(archive: Path, folder: Path) -> None:
    contents = _Contents()
    with archive.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ArchiveError("it is empty: copy it again")
    if not head.startswith(_GZIP_MAGIC):
        what = next((what for sign, at, what in _STRANGERS if head.startswith(sign, at)), "")
        raise ArchiveError(f"not a gzip file{what and f', but {what}'}: pack it with {_PACK}")
    with gzip.open(archive, "rb") as stream:
        for member in members(stream):
            is_kept = contents.admit(member.name, member.kind, member.size, member.target)
            place = folder / PurePosixPath(member.name) if is_kept else Path(os.devnull)
            with place.open("wb") as target:
                _copy(stream, target, member.size)


def _copy(source: gzip.GzipFile, target: IO[bytes], size: int) -> None:
    while size:
        block = source.read(min(size, 2**20))
        if not block:
            raise EOFError("the archive is truncated")
        target.write(block)
        size -= len(block)


def _check_bytes(name: str, size: int) -> None:
    limit = _MAX_JSON_BYTES if name.endswith(".json") else _MAX_NETWORK_BYTES
    if not 0 <= size <= limit:
        raise ArchiveError(f"{name}: {size} bytes, more than the {limit} allowed")


def _verified(folder: Path) -> Model:
    _check_listing(folder)
    manifest = _read_json(folder / MANIFEST)
    _check_digests(folder, manifest)
    digest = _describe(folder / MANIFEST)["sha256"]
    backbone = manifest.get("backbone")
    if not isinstance(backbone, str) or not _NAME.fullmatch(backbone):
        raise ArchiveError(f"{MANIFEST}: backbone must match {_NAME.pattern}")
    if manifest.get("precision") not in _PRECISIONS:
        raise ArchiveError(f"{MANIFEST}: precision must be one of {', '.join(_PRECISIONS)}")
    for name in _READ_BY_OTHERS:
        if not isinstance(_read_json(folder / name), dict):
            raise ArchiveError(f"{name}: must be a JSON object")
    return Model(
        folder=folder,
        manifest=manifest,
        digest=digest,
        name=f"kennel-{backbone.replace('_', '-')}-{digest[:12]}",
        labels=_labels(_read_json(folder / "labels.json")),
        preprocess=Preprocess.from_json(_read_json(folder / "preprocess.json")),
    )


def _check_listing(folder: Path) -> None:
    contents = _Contents()
    missing = set(ALL_FILES)
    for name, status in _entries(folder):
        kind = next((k for k, holds in _MODES.items() if holds(status.st_mode)), OTHER)
        if contents.admit(name, kind, status.st_size if kind == FILE else 0):
            missing.remove(name)
    if missing:
        raise ArchiveError(f"missing {', '.join(sorted(missing))}")


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give what lies in a model's folder and in its folder of code; links are not followed."""
    for entry in folder.iterdir():
        yield entry.name, entry.lstat()
    for parent, folders, files in os.walk(folder / _CODE):
        for path in (Path(parent, name) for name in (*folders, *files)):
            yield path.relative_to(folder).as_posix(), path.lstat()


def _check_digests(folder: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArchiveError(f"{MANIFEST}: not of format {FORMAT}")
    stated = manifest.get("files")
    if not isinstance(stated, dict) or stated.keys() != set(MODEL_FILES):
        raise ArchiveError(f"{MANIFEST}: must state the digests of {', '.join(MODEL_FILES)}")
    for name, entry in describe_files(folder).items():
        if stated[name] != entry:
            raise ArchiveError(f"{name}: altered, its digest is not the one in {MANIFEST}")


def _describe(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"sha256": digest, "bytes": file.tell()}
    except FileNotFoundError:
        raise ArchiveError(f"{path.name}: missing") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArchiveError(f"{path.name}: missing") from None
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{path.name}: not JSON: {error}") from error


def _labels(content: Any) -> tuple[str, ...]:
    valid = isinstance(content, list) and all(isinstance(v, str) and v for v in content)
    # JSON can name half a character, which no answer can carry.
    valid = valid and all(v.encode(errors="ignore").decode() == v for v in content)
    if not valid or not content or len(set(content)) != len(content):
        raise ArchiveError("labels.json: must be a list of distinct names")
    return tuple(content)
