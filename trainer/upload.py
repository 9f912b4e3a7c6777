"""The data set in the bucket: up as shards, only what changed; and down again.

    python -m trainer.upload upload --env dev --data build/data/dogs
    python -m trainer.upload download --env dev --name dogs --data build/data/dogs

It lies at `s3://<bucket>/data/<name>/`: shards, and `manifest.json`, which is written last and in
one step. Uploads at the same time cannot spoil it: a shard's name tells the generation that it was
made for, each generation's manifest replaces only the one it was made from, and a generation uses
nothing but shards of its own and of that one. So those of earlier generations that a manifest does
not name are never needed again, and are removed.
"""

import base64
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from trainer import target as targets
from trainer.cache import MAX_FILE_BYTES
from trainer.dataset import ImageFolder, fingerprint_of, scan
from trainer.disk import require_room
from trainer.errors import ArgumentParser, KennelError, UsageError, run_command
from trainer.files import write_json_atomic
from trainer.layout import SPLITS
from trainer.make_command import make_command
from trainer.names import shown
from trainer.patience import read_object
from trainer.progress import progress
from trainer.shards import (
    MANIFEST,
    SHARD_BYTES,
    Group,
    Manifest,
    Shard,
    ShardError,
    describe,
    is_photo,
    make_folder,
    pack,
    partition,
    read_manifest,
)
from trainer.target import Target
from trainer.workspace import NEW, replacing_folder

_THREADS = 4
_ATTEMPTS = 5
_SOURCE = "source.json"
_REPORT = "dataset_report.json"
_ORIGIN = "download.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SHARD = re.compile(r"\w+-[0-9a-f]{16}\.(\d+)\.tar")
_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}
# A shard is one request, checked by one checksum; several shards at a time keep the line busy.
_ONE_REQUEST = TransferConfig(multipart_threshold=5 * 1024**3, use_threads=False)

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Uploaded:
    """What an upload did.

    Attributes:
        uri: Where the data set lies, with a slash at the end.
        changed: Whether it is another one than before.
        fingerprint: `trainer.dataset`'s fingerprint of all splits.
        images: Number of photos in each split.
        shards: Number of shards.
        bytes: Of all shards.
        uploaded_shards: Number of shards that had to be uploaded.
        uploaded_bytes: Of these.
        removed_shards: Number of shards removed from the bucket.
    """

    uri: str
    changed: bool
    fingerprint: str
    images: dict[str, int]
    shards: int
    bytes: int
    uploaded_shards: int
    uploaded_bytes: int
    removed_shards: int


@dataclass(frozen=True)
class Downloaded:
    """What a download did.

    Attributes:
        uri: Where the data set lies, with a slash at the end.
        folder: The data folder.
        changed: Whether the folder was made or replaced.
        fingerprint: `trainer.dataset`'s fingerprint of all splits.
        images: Number of photos in each split.
    """

    uri: str
    folder: str
    changed: bool
    fingerprint: str
    images: dict[str, int]


def address(target: Target, name: str) -> str:
    """Give the address of a data set, with a slash at the end: a training job's channel.

    Raises:
        UsageError: The name does not fit into an address.
        KennelError: The foundation has not been applied.
    """
    return _store(target, name).uri


def require_manifest(target: Target, name: str) -> Manifest:
    """Read what a data set in the bucket holds.

    Raises:
        UsageError: There is none of that name.
        KennelError: The foundation has not been applied, or the manifest is damaged.
    """
    return _store(target, name).require_manifest()[0]


def upload(target: Target, data: Path, name: str, shard_bytes: int = SHARD_BYTES) -> Uploaded:
    """Upload a data folder, or what of it the bucket lacks.

    Until the end, readers see the former data set. A job that is still copying it while it is
    replaced fails, and says so.

    Args:
        target: The environment.
        data: Folder with `train/ valid/ test/`, each with a folder a class.
        name: The data set's name in the bucket.
        shard_bytes: Most bytes of photos in a shard.

    Raises:
        UsageError: The folder is no data folder, or the name does not fit into an address.
        KennelError: A file cannot be read, or other uploads to the same name never end.
    """
    store = _store(target, name)
    local = _read_folder(data, shard_bytes)
    groups = {group.sha256: group for group in local.groups}
    for _ in range(_ATTEMPTS):
        former, etag = store.manifest()
        there = store.sizes()
        manifest = _next_manifest(local, former)
        missing = [shard for shard in manifest.shards if there.get(shard.file) != shard.bytes]
        store.put(data, [(shard, groups[shard.sha256]) for shard in missing])
        if manifest == former or store.switch(manifest, etag):
            break
    else:
        raise KennelError(f"others keep changing {store.uri}: upload to another --name, or later")
    needless = _needless(there, manifest)
    store.remove(needless)
    return Uploaded(
        uri=store.uri,
        changed=manifest != former,
        fingerprint=manifest.fingerprint,
        images=manifest.images,
        shards=len(manifest.shards),
        bytes=manifest.bytes,
        uploaded_shards=len(missing),
        uploaded_bytes=sum(shard.bytes for shard in missing),
        removed_shards=len(needless),
    )


def download(target: Target, name: str, data: Path) -> Downloaded:
    """Make a data folder of a data set in the bucket.

    A folder that is there already is left alone when it holds the same, replaced in one step when
    it is as an earlier download left it, and else refused. Shards that arrived before a break are
    not fetched again.

    Args:
        target: The environment.
        name: The data set's name in the bucket.
        data: The data folder.

    Raises:
        UsageError: The folder holds something else, or the name does not fit into an address.
        KennelError: There is no such data set, it is damaged, or the disk is too small.
    """
    store = _store(target, name)
    manifest, _ = store.require_manifest()
    try:
        changed = not _holds(data, manifest, store.uri)
        if changed:
            with replacing_folder(data) as workspace:
                store.fetch(manifest, workspace)
                _make(workspace, manifest, store.uri)
    except OSError as error:
        raise KennelError(f"cannot make {data}: {error.strerror} ({error.filename})") from error
    return Downloaded(store.uri, str(data), changed, manifest.fingerprint, manifest.images)


@dataclass(frozen=True)
class _Local:
    """A data folder that was read."""

    folder: ImageFolder
    groups: tuple[Group, ...]

    @property
    def digests(self) -> dict[str, str]:
        return {file: digest for group in self.groups for file, digest in group.digests.items()}

    @property
    def contents(self) -> str:
        return hashlib.sha256(json.dumps(sorted(self.digests.items())).encode()).hexdigest()

    def fingerprint(self, skipped: Collection[str]) -> str:
        return fingerprint_of(
            (file, digest) for file, digest in self.digests.items() if file not in skipped
        )


def _read_folder(data: Path, shard_bytes: int = SHARD_BYTES) -> _Local:
    folder = scan(data)
    sizes = {file: size for file, size in _sizes(folder) if size is not None}
    left_out = [file for files in folder.files.values() for file in files if file not in sizes]
    left_out += [skip.file for skip in folder.skipped]
    if left_out:
        _log.warning(
            "%d files in %s are no data and stay behind, the first %s",
            *(len(left_out), shown(data), shown(left_out[0])),
        )
    groups = [
        (split, group)
        for split, files in folder.files.items()
        for group in partition({f: sizes[f] for f in files if f in sizes}, shard_bytes)
    ]
    with progress("reading", len(sizes), "photos") as count, ThreadPoolExecutor(_THREADS) as pool:
        described = []
        for group in pool.map(lambda given: describe(data, *given), groups):
            described.append(group)
            count(len(group.digests))
    return _Local(folder, tuple(described))


def _sizes(folder: ImageFolder) -> Iterator[tuple[str, int | None]]:
    """Give the size of each file, None if `trainer.dataset` would not read it."""
    for files in folder.files.values():
        for file in files:
            path = folder.root / file
            size = path.stat().st_size if os.access(path, os.R_OK) else None
            yield file, size if size is not None and size <= MAX_FILE_BYTES else None


def _next_manifest(local: _Local, former: Manifest | None) -> Manifest:
    """Give the manifest that a folder leads to: `former` itself if that says the same."""
    generation = former.generation + 1 if former else 1
    shards = _shards(local, {s.sha256: s for s in former.shards} if former else {}, generation)
    skipped = {file for shard in shards for file in shard.skipped}
    manifest = Manifest(
        generation=generation,
        contents=local.contents,
        fingerprint=local.fingerprint(skipped),
        classes=local.folder.classes,
        source=_read_json(local.folder.root / _SOURCE),
        shards=shards,
    )
    if former and replace(manifest, generation=former.generation) == former:
        return former
    return manifest


def _shards(local: _Local, known: Mapping[str, Shard], generation: int) -> tuple[Shard, ...]:
    """Give the shards of a folder; those that are not known yet belong to the generation."""
    new = [group for group in local.groups if group.sha256 not in known]
    no_photos = _reported(local)
    if no_photos is None:
        no_photos = _undecodable(local.folder.root, new)

    def shard(group: Group) -> Shard:
        skipped = tuple(file for file in group.digests if file in no_photos)
        return Shard(
            file=f"{group.split}-{group.sha256[:16]}.{generation}.tar",
            split=group.split,
            sha256=group.sha256,
            bytes=group.bytes,
            images=len(group.digests) - len(skipped),
            skipped=skipped,
        )

    return tuple(known.get(group.sha256) or shard(group) for group in local.groups)


def _reported(local: _Local) -> set[str] | None:
    """Give the files that are no photos by the data report, if it is about these very files."""
    report = _read_json(local.folder.root / _REPORT)
    try:
        skipped = {entry["file"] for entry in report["skipped"]}
        fingerprint = report["fingerprint"]
    except (KeyError, TypeError):
        return None
    return skipped if local.fingerprint(skipped) == fingerprint else None


def _undecodable(root: Path, groups: Sequence[Group]) -> set[str]:
    files = [file for group in groups for file in group.digests]
    with (
        progress("checking", len(files), "photos") as count,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        found = set()
        for file, photo in zip(files, pool.map(lambda f: is_photo(root / f), files), strict=True):
            if not photo:
                found.add(file)
            count(1)
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _needless(there: Mapping[str, int], manifest: Manifest) -> list[str]:
    """List the shards that no manifest names now or ever will; see the top of this file."""
    named = {shard.file for shard in manifest.shards}
    return [
        file
        for file in there
        if (match := _SHARD.fullmatch(file))
        and int(match[1]) <= manifest.generation
        and file not in named
    ]


def _holds(data: Path, manifest: Manifest, uri: str) -> bool:
    """Whether a folder holds the data set; if not, it may be replaced.

    Raises:
        UsageError: It holds something else.
    """
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return False
    refused = UsageError(
        f"{data} holds something else than {uri}, or was changed since it came from there; "
        "remove it, or choose another --data"
    )
    if not all((data / split).is_dir() for split in SPLITS):
        raise refused
    contents = _read_folder(data).contents
    if contents == manifest.contents:
        return True
    if _read_json(data / _ORIGIN) != _origin(uri, contents):
        raise refused
    return False


def _origin(uri: str, contents: str) -> dict[str, str]:
    return {"uri": uri, "contents": contents}


def _make(workspace: Path, manifest: Manifest, uri: str) -> None:
    new = workspace / NEW
    try:
        make_folder(workspace, manifest, SPLITS, new)
    except ShardError as error:
        if error.path:
            error.path.unlink(missing_ok=True)
        raise
    write_json_atomic(new / _ORIGIN, _origin(uri, manifest.contents))
    if manifest.source is not None:
        write_json_atomic(new / _SOURCE, manifest.source)


@dataclass(frozen=True)
class _Store:
    """A data set's place in the bucket."""

    client: Any
    bucket: str
    name: str
    environment: str

    @property
    def prefix(self) -> str:
        return f"data/{self.name}/"

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def manifest(self) -> tuple[Manifest | None, str | None]:
        """Give the manifest and its entity tag, if there is one."""
        try:
            found = read_object(self.client, self.bucket, self.prefix + MANIFEST)
        except self.client.exceptions.NoSuchKey:
            return None, None
        return read_manifest(found.content, self.uri + MANIFEST), found.etag

    def require_manifest(self) -> tuple[Manifest, str | None]:
        manifest, etag = self.manifest()
        if manifest is None:
            raise UsageError(
                f"there is no {self.uri}{MANIFEST}: upload the data set with "
                f"`{make_command('upload', self.environment, DATASET=self.name)}`"
            )
        return manifest, etag

    def sizes(self) -> dict[str, int]:
        """Give the size of each file there."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        )
        found = (entry for page in pages for entry in page.get("Contents", []))
        return {entry["Key"].removeprefix(self.prefix): entry["Size"] for entry in found}

    def put(self, data: Path, shards: Sequence[tuple[Shard, Group]]) -> None:
        def put_one(given: tuple[Shard, Group], count: Callable[[int], None]) -> None:
            shard, group = given
            digest = base64.b64encode(bytes.fromhex(shard.sha256)).decode()
            # Around all of it: to close a file writes what is left of it.
            try:
                with tempfile.TemporaryFile() as tar:
                    pack(data, group, tar)
                    tar.seek(0)
                    self.client.upload_fileobj(
                        tar,
                        self.bucket,
                        self.prefix + shard.file,
                        ExtraArgs={
                            "ChecksumAlgorithm": "SHA256",
                            "ChecksumSHA256": digest,
                            "ContentType": "application/x-tar",
                        },
                        Callback=count,
                        Config=_ONE_REQUEST,
                    )
            except OSError as error:
                raise KennelError(
                    f"cannot write a shard to {tempfile.gettempdir()}: {error.strerror}; "
                    "free some space or set TMPDIR to another folder"
                ) from error

        _side_by_side("uploading", sum(shard.bytes for shard, _ in shards), put_one, shards)

    def switch(self, manifest: Manifest, etag: str | None) -> bool:
        """Put a manifest in the place of the one with that tag; false if another is there now."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            self.client.put_object(
                Bucket=self.bucket,
                Key=self.prefix + MANIFEST,
                Body=manifest.to_text().encode(),
                ContentType="application/json",
                ChecksumAlgorithm="SHA256",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _CONFLICTS:
                raise
            # The answer to an earlier attempt may have been lost: what is there is this one then.
            return self.manifest()[0] == manifest
        return True

    def remove(self, files: Sequence[str]) -> None:
        for file in files:
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + file)

    def fetch(self, manifest: Manifest, folder: Path) -> None:
        """Copy to a folder those shards that it lacks."""

        def fetch_one(shard: Shard, count: Callable[[int], None]) -> None:
            self.client.download_file(
                self.bucket,
                self.prefix + shard.file,
                str(folder / shard.file),
                Callback=count,
                Config=_ONE_REQUEST,
            )

        lacking = [shard for shard in manifest.shards if not (folder / shard.file).exists()]
        total = sum(shard.bytes for shard in lacking)
        require_room(folder, total + manifest.bytes)
        try:
            _side_by_side("downloading", total, fetch_one, lacking)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                raise
            raise KennelError(
                f"{self.uri} lacks a shard, or was replaced meanwhile: download it again; "
                "if that does not help, upload it again"
            ) from error
        except Boto3Error as error:
            raise KennelError(f"{self.uri} breaks off: {error}; download it again") from error


def _store(target: Target, name: str) -> _Store:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a data set: use up to 63 letters, digits, dots, hyphens and "
            "underscores, and begin with a letter or a digit; rename the folder, or give --name"
        )
    return _Store(target.client("s3"), target.required_parameter("bucket"), name, target.name)


def _side_by_side(
    title: str,
    total: int,
    work: Callable[[_Item, Callable[[int], None]], None],
    items: Sequence[_Item],
) -> None:
    """Work on items in threads, which count bytes; the first failure stops the others."""
    if not items:
        return
    stop, lock = Event(), Lock()
    with progress(title, total, "B") as count, ThreadPoolExecutor(_THREADS) as pool:

        def count_in_turn(units: int) -> None:
            if stop.is_set():
                raise KennelError(f"{title} was stopped")
            with lock:
                count(units)

        jobs = [pool.submit(work, item, count_in_turn) for item in items]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main() -> None:
    """Upload or download a data set."""
    parser = ArgumentParser(prog="python -m trainer.upload", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("upload", help="bring the bucket up to date with a data folder")
    up.add_argument("--data", type=Path, required=True, help="folder with train/ valid/ test/")
    up.add_argument("--name", help="name in the bucket (default: the folder's)")
    down = commands.add_parser("download", help="make a data folder of what is in the bucket")
    down.add_argument("--name", required=True, help="name in the bucket")
    down.add_argument("--data", type=Path, required=True, help="the data folder to make")
    for command in (up, down):
        targets.add_arguments(command)
    options = parser.parse_args()
    with targets.explained(options.debug):
        target = targets.load(options.env)
        if options.command == "upload":
            name = options.name or options.data.absolute().name
            _tell(upload(target, options.data, name), _upload_line, options.json)
        else:
            _tell(download(target, options.name, options.data), _download_line, options.json)


_Done = TypeVar("_Done", Uploaded, Downloaded)


def _tell(done: _Done, line: Callable[[_Done], str], as_json: bool) -> None:
    sys.stdout.write((json.dumps(asdict(done)) if as_json else line(done)) + "\n")


def _upload_line(done: Uploaded) -> str:
    photos = f"{sum(done.images.values()):,} photos in {done.shards} shards"
    if not done.changed and not done.uploaded_shards:
        return f"{done.uri} is up to date: {photos}"
    return (
        f"{done.uri}: {photos}; {done.uploaded_shards} uploaded "
        f"({done.uploaded_bytes / 1e6:,.1f} MB), {done.removed_shards} old ones removed"
    )


def _download_line(done: Downloaded) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in done.images.items())
    state = "" if done.changed else " is up to date"
    return f"{done.folder}{state}: photos: {counts}"


if __name__ == "__main__":
    run_command(main)
