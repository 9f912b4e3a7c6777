"""Files that are either the old ones or the new ones, never half of each; archives unpacked."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block succeeds.

    Only the owner can read the file. When the block fails, `path` keeps its former content.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive; only plain files and folders, and none of them outside of `folder`.

    Raises:
        tarfile.TarError: It is damaged or holds something else.
        OSError: A file cannot be written.
    """
    # tarfile's own filter for this is not in every Python 3.11.
    folder = folder.resolve()
    with tarfile.open(archive) as packed:
        for member in packed:
            place = (folder / member.name).resolve()
            if not (member.isfile() or member.isdir()) or not place.is_relative_to(folder):
                raise tarfile.TarError(f"{member.name!r} is no plain file inside of the archive")
            content = packed.extractfile(member)
            (place.parent if content else place).mkdir(parents=True, exist_ok=True)
            if content:
                with content, place.open("wb") as target:
                    shutil.copyfileobj(content, target)
