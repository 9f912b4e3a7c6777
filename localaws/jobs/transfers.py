"""Between S3 and folders, as SageMaker does it: channels, checkpoints, archives of a model."""

import gzip
import json
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localaws.errors import LocalAwsError


class TransferError(LocalAwsError):
    """What is to be fetched is not there, or cannot be fetched in that way."""


def split(uri: str) -> tuple[str, str]:
    """Bucket and key, or prefix, of an s3:// address."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def objects(s3: Any, source: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The objects of a source: of each its bucket, its key and its name below the source.

    Args:
        s3: A client.
        source: An `S3DataSource`.

    Raises:
        TransferError: There are none, or the source is of an unknown type.
        ClientError: S3 refused.
    """
    kind, uri = source["S3DataType"], source["S3Uri"]
    if kind == "S3Prefix":
        found = list(_below(s3, uri))
    elif kind == "ManifestFile":
        found = list(_named(s3, uri))
    else:
        raise TransferError(f"localaws knows S3DataType S3Prefix and ManifestFile, not {kind}")
    if not found:
        raise TransferError(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure'
            " that the bucket exists in the selected region, that objects exist under that S3"
            ' prefix, and that the role has "s3:ListBucket" permissions on the bucket.'
        )
    return found


def fetch_channel(s3: Any, source: Mapping[str, Any], folder: Path, host: int, hosts: int) -> None:
    """Fetch what one host gets of a channel.

    Args:
        s3: A client.
        source: The channel's `S3DataSource`.
        folder: The channel's folder on that host.
        host: Which host, from 0.
        hosts: How many there are.

    Raises:
        TransferError: There is nothing, or the source is of an unknown type.
        ClientError: S3 refused.
    """
    found = objects(s3, source)
    if source.get("S3DataDistributionType") == "ShardedByS3Key":
        found = found[host::hosts]
    for bucket, key, name in found:
        _fetch(s3, bucket, key, folder, name)


def fetch_prefix(s3: Any, uri: str, folder: Path) -> None:
    """Fetch all below a prefix; nothing if there is nothing."""
    for bucket, key, name in _below(s3, uri.rstrip("/") + "/"):
        _fetch(s3, bucket, key, folder, name)


def encryption(output: Mapping[str, Any]) -> dict[str, str]:
    """How SageMaker asks S3 to encrypt what a job leaves, by the job's `OutputDataConfig`.

    Without a key it names the account's default one, aws/s3, whatever the bucket's own setting is
    (API reference, `OutputDataConfig.KmsKeyId`).
    """
    key = output.get("KmsKeyId")
    return {"ServerSideEncryption": "aws:kms", **({"SSEKMSKeyId": key} if key else {})}


def put_file(s3: Any, path: Path, uri: str, options: Mapping[str, str]) -> None:
    """Put one file: whole, or not at all."""
    bucket, key = split(uri)
    with path.open("rb") as file:
        s3.upload_fileobj(file, bucket, key, ExtraArgs=dict(options))


def put_files(s3: Any, folder: Path, uri: str, options: Mapping[str, str]) -> None:
    """Put the files of a folder below a prefix that ends with a slash."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put_file(s3, path, uri + path.relative_to(folder).as_posix(), options)


def _below(s3: Any, uri: str) -> Iterator[tuple[str, str, str]]:
    """Bucket, key and local name of the objects whose keys begin with a prefix, by key."""
    bucket, prefix = split(uri)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            key: str = found["Key"]
            if key.endswith("/"):
                continue
            rest = key.removeprefix(prefix)
            is_folder = prefix.endswith("/") or rest.startswith("/")
            parent = prefix if is_folder else prefix.rpartition("/")[0]
            yield bucket, key, key.removeprefix(parent).lstrip("/")


def _named(s3: Any, uri: str) -> Iterator[tuple[str, str, str]]:
    """The objects that a manifest names: a prefix, then what follows it in each key."""
    bucket, key = split(uri)
    try:
        first, *names = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
        bucket, prefix = split(first["prefix"])
        if not all(isinstance(name, str) for name in names):
            raise ValueError("only the first entry may be an object")
    except (KeyError, TypeError, ValueError) as error:
        raise TransferError(
            f'{uri} is no manifest, which is [{{"prefix": "s3://..."}}, "NAME", ...]: {error!r}'
        ) from error
    for name in names:
        yield bucket, prefix + name, name


def _fetch(s3: Any, bucket: str, key: str, folder: Path, name: str) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise TransferError(f"the key s3://{bucket}/{key} leads out of the channel's folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(s3.get_object(Bucket=bucket, Key=key)["Body"], file)


@dataclass(frozen=True)
class _State:
    """What tells one content of a file from another, without reading it."""

    inode: int
    size: int
    written_ns: int
    renamed_ns: int

    @classmethod
    def of(cls, path: Path) -> "_State | None":
        """A file's state; None if there is no such file."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def is_whole(self) -> bool:
        """Whether the file got its name after its last byte, as one that is saved atomically."""
        return self.renamed_ns > self.written_ns


class Mirror:
    """Keeps below a prefix of S3 what a folder holds; what is deleted there stays in S3."""

    def __init__(self, folder: Path, uri: str, options: Mapping[str, str]) -> None:
        """Start with a folder whose present files S3 has.

        Args:
            folder: The folder.
            uri: The prefix.
            options: More parameters of `PutObject`.
        """
        self._folder, self._options = folder, options
        self._bucket, prefix = split(uri)
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._seen = self._states()
        self._sent = dict(self._seen)

    def sync(self, s3: Any, *, final: bool) -> bool:
        """Put what has changed; true if anything was put.

        Args:
            s3: A client.
            final: Nobody writes any more. Otherwise a file that may not be whole yet has to look
                the same twice.
        """
        states = self._states()
        before, self._seen = self._seen, states
        put = False
        for path, state in states.items():
            if self._sent.get(path) == state:
                continue
            if not (final or state.is_whole or before.get(path) == state):
                continue
            content = path.read_bytes()
            if _State.of(path) == state:
                key = self._prefix + path.relative_to(self._folder).as_posix()
                s3.put_object(Bucket=self._bucket, Key=key, Body=content, **self._options)
                self._sent[path], put = state, True
        return put

    def _states(self) -> dict[Path, _State]:
        # Whoever saves atomically writes under a name with a dot first.
        files = (path for path in self._folder.rglob("*") if not path.name.startswith("."))
        return {path: state for path in files if (state := _State.of(path))}


def pack(folders: list[Path], archive: Path) -> bool:
    """Pack what is in the folders; of two files of one name the first folder's. Same in, same out.

    Returns:
        Whether there was anything to pack.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found.setdefault(path.relative_to(folder).as_posix(), path)
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as packed,
    ):
        for name in sorted(found):
            member = packed.gettarinfo(found[name], name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = 0
            with found[name].open("rb") as content:
                packed.addfile(member, content)
    return bool(found)
