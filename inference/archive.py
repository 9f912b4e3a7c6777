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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from inference.preprocess import Preprocess

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
# The classic SageMaker containers keep the handler's code beside the model; nothing is read there.
_TOLERATED_FOLDERS = frozenset({"code"})


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
    folder = path if path.is_dir() else _new_folder(workdir)
    try:
        if folder != path:
            _unpack(path, folder)
        return _verified(folder)
    except (ArchiveError, OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        if folder != path:
            shutil.rmtree(folder)
        raise ArchiveError(f"{path}: not a sound model: {error}") from error


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


def _unpack(archive: Path, folder: Path) -> None:
    # Headers are read one by one: tarfile's own reader follows extended headers, whose length an
    # attacker chooses, before a caller can look at them.
    with gzip.open(archive, "rb") as stream:
        while any(header := stream.read(tarfile.BLOCKSIZE)):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            _check_member(member, folder)
            with (folder / member.name).open("xb") as file:
                _copy(stream, file, member.size)
            stream.read(-member.size % tarfile.BLOCKSIZE)
        if any(stream.read(tarfile.RECORDSIZE)) or stream.read(1):
            raise ArchiveError("data after the last file")


def _check_member(member: tarfile.TarInfo, folder: Path) -> None:
    if member.name not in ALL_FILES or (folder / member.name).exists():
        raise ArchiveError(f"{member.name!r} is no file of a model, or is there twice")
    if member.type != tarfile.REGTYPE:
        raise ArchiveError(f"{member.name!r} is not a regular file")
    _check_bytes(member.name, member.size)


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
    return Model(
        folder=folder,
        manifest=manifest,
        digest=digest,
        name=f"kennel-{backbone.replace('_', '-')}-{digest[:12]}",
        labels=_labels(_read_json(folder / "labels.json")),
        preprocess=Preprocess.from_json(_read_json(folder / "preprocess.json")),
    )


def _check_listing(folder: Path) -> None:
    entries = {entry.name: entry.lstat() for entry in folder.iterdir()}
    for name, status in entries.items():
        if name in _TOLERATED_FOLDERS and stat.S_ISDIR(status.st_mode):
            continue
        if name not in ALL_FILES or not stat.S_ISREG(status.st_mode):
            raise ArchiveError(f"{name!r} does not belong to a model")
        _check_bytes(name, status.st_size)
    if missing := [name for name in ALL_FILES if name not in entries]:
        raise ArchiveError(f"missing {', '.join(missing)}")


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
    if not valid or not content or len(set(content)) != len(content):
        raise ArchiveError("labels.json: must be a list of distinct names")
    return tuple(content)
