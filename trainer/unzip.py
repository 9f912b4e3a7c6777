"""Unpack a zip file that nobody vouches for."""

import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainer.disk import require_room
from trainer.errors import KennelError
from trainer.progress import progress

MAX_ENTRIES = 200_000
MAX_BYTES = 8 * 1024**3
MAX_RATIO = 100

_CHUNK_BYTES = 1024**2
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


class ZipError(KennelError):
    """The zip file is damaged or not to be trusted; the message says why."""


def unzip(archive: Path, destination: Path, folder: str) -> None:
    """Unpack what lies in the archive's `folder`, without that name, to `destination`.

    The whole list of contents is judged before the first byte is written; the checksum of each
    file is compared while it is unpacked. Permissions and times in the archive are not used.

    Raises:
        ZipError: Damaged, encrypted, or with a path that leads elsewhere, a link, a device, a path
            that comes twice, or sizes beyond `MAX_ENTRIES`, `MAX_BYTES` and `MAX_RATIO`.
        KennelError: The disk is too small.
    """
    try:
        with zipfile.ZipFile(archive) as contents:
            members = contents.infolist()
            _judge(archive, members)
            files = [member for member in members if _is_wanted(member, folder)]
            destination.mkdir(parents=True, exist_ok=True)
            require_room(destination, sum(member.file_size for member in files))
            with progress(f"unpacking {archive.name}", len(files), "files") as count:
                for member in files:
                    target = destination / PurePosixPath(member.filename).relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with contents.open(member) as source, target.open("xb") as file:
                        shutil.copyfileobj(source, file, _CHUNK_BYTES)
                    count(1)
    # Damaged lists of contents make zipfile's own parsing fail in all of these ways.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ZipError(f"{archive} is no sound zip file: {error}") from error
    except OSError as error:
        raise KennelError(f"cannot unpack {archive} to {destination}: {error.strerror}") from error


def _is_wanted(member: zipfile.ZipInfo, folder: str) -> bool:
    parts = PurePosixPath(member.filename).parts
    return len(parts) > 1 and parts[0] == folder and not member.is_dir()


def _judge(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_ENTRIES:
        raise ZipError(f"{archive} has {len(members):,} entries, more than {MAX_ENTRIES:,}")
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise ZipError(f"{archive} unpacks to {total:,} bytes, more than {MAX_BYTES:,}")
    seen: set[PurePosixPath] = set()
    for member in members:
        fault = _fault(member)
        path = PurePosixPath(member.filename)
        if fault is None and path in seen:
            fault = "a path that comes twice"
        if fault:
            raise ZipError(f"{archive} is refused for {member.orig_filename!r}: {fault}")
        seen.add(path)


def _fault(member: zipfile.ZipInfo) -> str | None:
    """Say what is wrong with an entry, None if nothing."""
    if not is_safe_path(member.orig_filename):
        return "a path that may lead elsewhere"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        return "encrypted or packed by an unusual method"
    if member.file_size > MAX_RATIO * max(member.compress_size, 1):
        return f"more than {MAX_RATIO} times larger once unpacked"
    return None


def is_safe_path(name: str) -> bool:
    """Whether a zip entry's name stays below the folder it is unpacked to, on any system."""
    parts = PurePosixPath(name).parts
    return (
        name.isprintable()
        and not set(name) & set("\\:")
        and bool(parts)
        and parts[0][0] != "/"
        and ".." not in parts
        and not any(_WINDOWS_DEVICE.fullmatch(part) for part in parts)
    )
