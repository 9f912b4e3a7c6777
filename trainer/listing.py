"""What lies in a folder of photos, without what systems and tools leave behind."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import UsageError
from trainer.names import shown

# Hidden files are never data; these are not hidden everywhere. In lower case.
_OF_SYSTEMS = frozenset(
    {
        # Windows
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "zbthumbnail.info"),
        *("$recycle.bin", "recycler", "recycled", "system volume information"),
        *("$windows.~bt", "$windows.~ws", "msdownld.tmp", *(f"found.{n:03}" for n in range(100))),
        # macOS
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        *("thevolumesettingsfolder", "thefindbycontentfolder"),
        # Linux, Android
        *("lost+found", "lost.dir"),
        # Synology, QNAP
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),
        *("@sharebin", "@synoresource"),
        # programs
        *("__pycache__", "picasa.ini"),
    }
)


def is_of_system(name: str) -> bool:
    """Whether a file or folder of this name is left by a system or a tool, and is no data."""
    return name.startswith((".", "~$")) or name.lower() in _OF_SYSTEMS


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name, without hidden files and those that systems and tools leave behind.

    Raises:
        UsageError: The folder cannot be listed.
    """
    return [entry for entry in _entries(folder) if not is_of_system(entry.name)]


def class_folders(folder: Path) -> list[str]:
    """List the names of the visible folders in `folder`, sorted."""
    return [entry.name for entry in visible(folder) if is_folder(entry)]


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Give the visible entries below `folder` but folders; links to folders are not followed."""
    for entry in visible(folder):
        if is_folder(entry, follow=False):
            yield from walk(Path(entry))
        else:
            yield entry


def left_out(folder: Path) -> Counter[str]:
    """Count by name what `visible` leaves out of a folder and of the visible folders below it."""
    counts: Counter[str] = Counter()
    for entry in _entries(folder):
        if is_of_system(entry.name):
            counts["._*" if entry.name.startswith("._") else entry.name] += 1
        elif is_folder(entry, follow=False):
            counts += left_out(Path(entry))
    return counts


def is_folder(entry: os.DirEntry[str], *, follow: bool = True) -> bool:
    """Whether an entry is a folder or, with `follow`, a link to one."""
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:  # a link in a circle
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"cannot list {shown(folder)}: {error.strerror}") from error
