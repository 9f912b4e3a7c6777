"""What lies in a folder of photos, without what systems and tools leave behind."""

import os
import re
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
        *("lost+found", "lost.dir", "~snapshot"),
        # Synology, QNAP
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),
        *("@sharebin", "@synoresource", "@s2s", "@synofinder-log", "@synoeastream"),
        # programs
        *("__pycache__", "picasa.ini", "node_modules", "_gsdata_"),
    }
)
# Hidden folders with copies of photos that programs keep.
_COPIES = re.compile(
    r"\.([_@].*|apple.*|bridge.*|cache.*|comments|doc.*|drop.*|ds_.*|dvc|fs.*|fuse.*|git.*|hg|idea"
    r"|ipynb.*|kobo.*|media.*|nfs.*|picasa.*|snapshots?|spot.*|st.*|svn|sync.*|temp.*"
    r"|tmp.*|thumb.*|trash.*|venv|vs.*|xvpics|zfs)",
    re.IGNORECASE,
)
_PHOTO = re.compile(r".*\.(jpe?g|png|webp)", re.IGNORECASE | re.DOTALL)


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


def hidden_classes(folder: Path) -> list[str]:
    """List the hidden folders in `folder` that hold photos, as `.5mm` may, and are no program's."""
    return [entry.name for entry in _entries(folder) if _may_be_class(entry)]


def _may_be_class(entry: os.DirEntry[str]) -> bool:
    if not entry.name.startswith(".") or _COPIES.fullmatch(entry.name) or not is_folder(entry):
        return False
    try:
        return any(_PHOTO.fullmatch(inner.name) for inner in visible(Path(entry)))
    except UsageError:  # it cannot be listed
        return False


def why_no_file(entry: os.DirEntry[str]) -> str:
    """Say why an entry of `walk` that is no file gives no photo, and what to do."""
    if not entry.is_symlink():
        return "neither a file nor a link to one: remove it"
    if is_folder(entry):
        return "a link to a folder, which is not followed: put the folder itself there"
    if os.path.exists(entry):  # noqa: PTH110 - pathlib raises for a link in a circle
        return "a link to what is no file: remove it"
    return "a link that leads nowhere: mend or remove it"


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
        if _may_be_class(entry):
            continue
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
