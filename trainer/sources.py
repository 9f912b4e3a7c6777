"""Make a data folder (`train/ valid/ test/`, a folder a class) from a named data set or any folder.

    python -m trainer.sources digits --output build/data/digits

The folder takes its place in one step, when it is complete; `source.json` in it tells what it was
made from, so that a second run has nothing to do.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer import layout
from trainer.cache import MAX_FILE_BYTES
from trainer.dataset import classes_of, require_class, require_classes, said_of_systems
from trainer.download import download
from trainer.errors import ArgumentParser, KennelError, UsageError, run_command
from trainer.files import read_json, write_json_atomic
from trainer.layout import SPLITS, Layout
from trainer.listing import class_folders, hidden_classes, is_folder, visible, walk
from trainer.names import is_text, nfc, shown, some
from trainer.progress import progress
from trainer.unzip import ZipError, unzip
from trainer.workspace import NEW, replacing_folder

DOGS_URL = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"
SPLIT_BOUNDS = (0.70, 0.85)

_FORMAT = 1
_FOLDER_FORMAT = 3
_SOURCE = "source.json"
_OFFLINE = "`digits` and any folder of photos work offline"
_LONGEST_NAME = 255  # in bytes, of a file system

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """Where the photos come from.

    Attributes:
        identity: Says, as JSON, whether a data folder made earlier still matches.
        make: Fills its second argument, an empty folder; what it leaves in the first, the
            workspace, is there again after a failure.
        remarks: What the user should know of it, a line each.
    """

    identity: dict[str, Any]
    make: Callable[[Path, Path], None]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file of a source: `source`, where it lies, and `place`, its path in the data folder.

    If its split is still to be chosen, `split` is None, and `place` begins with the class.
    """

    source: Path
    split: str | None
    place: str


def split_of(sha256: str) -> str:
    """Give the split of a file by its content alone, so that no other file ever moves it.

    Args:
        sha256: Hex digest of the file.
    """
    position = int(sha256[:16], 16) / 2**64
    return SPLITS[sum(position >= bound for bound in SPLIT_BOUNDS)]


def prepare(dataset: str, output: Path, archive_url: str = DOGS_URL) -> dict[str, int]:
    """Make the data folder `output`, unless it is there already, made from the same source.

    Args:
        dataset: "digits", "dogs" or the path of a folder: one with `train/ valid/ test/`, or one
            with class folders only, which is split by content.
        output: The data folder; a former one stays whole until the new one takes its place.
        archive_url: Where the archive of "dogs" comes from.

    Returns:
        Number of files in each split.

    Raises:
        UsageError: The source is no usable data set, or `output` holds something else.
        KennelError: The download, the archive or the disk failed.
    """
    source = _source(dataset, output, archive_url)
    if counts := _counts_if_current(output, source):
        return counts
    if output.exists() and not (output / _SOURCE).is_file() and not _is_empty(output):
        raise UsageError(f"{shown(output)} holds something else; choose another --output")
    if others := _made_from_another(output, source):
        _log.warning("%s", others)
    try:
        with replacing_folder(output) as workspace:
            # Another process may have made it while this one waited.
            return _counts_if_current(output, source) or _make(source, workspace)
    except OSError as error:
        where = f" ({shown(error.filename)})" if error.filename else ""
        raise KennelError(f"cannot make {shown(output)}: {error.strerror}{where}") from error


def _source(dataset: str, output: Path, archive_url: str) -> _Source:
    if dataset == "digits":
        return _Source({"format": _FORMAT, "dataset": dataset}, _make_digits)
    if dataset == "dogs":
        identity = {"format": _FORMAT, "dataset": dataset, "url": archive_url}
        return _Source(identity, partial(_make_dogs, archive_url))
    return _folder_source(_given_folder(dataset), output)


def _given_folder(dataset: str) -> Path:
    if not dataset:
        raise UsageError("no data set is named; give digits, dogs or a folder of photos")
    folder = Path(dataset)
    if dataset.startswith("~") and not os.path.lexists(dataset):
        folder = Path(os.path.expanduser(dataset))  # noqa: PTH111 - leaves an unknown user alone
    try:
        is_there = stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        raise UsageError(f"{shown(dataset)} is neither digits nor dogs nor a folder") from None
    except OSError as error:
        raise UsageError(f"cannot read {shown(folder)}: {error.strerror}") from error
    if not is_there:
        raise UsageError(f"{shown(folder)} is a file: give a folder of photos; unpack an archive")
    return folder


def _folder_source(folder: Path, output: Path) -> _Source:
    one, other = folder.resolve(), output.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UsageError(
            f"{shown(output)} and {shown(folder)} lie in each other; choose another --output"
        )
    found = layout.find(folder)
    files = tuple(_files(found))
    identity = {
        "format": _FOLDER_FORMAT,
        "folder": str(one),
        "listing": _listing(folder, files, other),
    }
    remarks = (
        *found.remarks,
        *_said_of_likeness(found),
        *_said_of_missed(found),
        *_said_of_folders_in_classes(found),
        *said_of_systems(folder),
    )
    return _Source(identity, partial(_make_from_folder, found, files), remarks)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _counts_if_current(output: Path, source: _Source) -> dict[str, int] | None:
    """Count the files of each split, if they are those that `source` gave."""
    made = read_json(output / _SOURCE)
    if made.get("source") != source.identity:
        return None
    counts = _count(output)
    return counts if made == {"source": source.identity, "files": counts} else None


def _made_from_another(output: Path, source: _Source) -> str:
    """Say that a data folder of the same name, but of other photos, is about to be replaced."""
    made = read_json(output / _SOURCE).get("source")
    if not isinstance(made, dict):
        return ""
    former, new = (each.get("folder", each.get("dataset")) for each in (made, source.identity))
    if former == new:
        return ""
    return (
        f"{shown(output)} was made from {shown(former)}, and is made anew from {shown(new)}; "
        "what was trained on it is made anew, too: another OUT keeps both"
    )


def _count(folder: Path) -> dict[str, int]:
    return {
        split: sum(1 for _ in walk(folder / split)) if (folder / split).is_dir() else 0
        for split in SPLITS
    }


def _make(source: _Source, workspace: Path) -> dict[str, int]:
    new = workspace / NEW
    new.mkdir()
    for remark in source.remarks:
        _log.warning("%s", remark)
    source.make(workspace, new)
    counts = _count(new)
    if empty := [split for split, count in counts.items() if not count]:
        raise UsageError(
            f"no photo for {', '.join(empty)} among {sum(counts.values())}: add some there, or to "
            "train where there is no such folder, for then 15 % of its photos become that"
        )
    write_json_atomic(new / _SOURCE, {"source": source.identity, "files": counts})
    return counts


def _make_digits(_workspace: Path, new: Path) -> None:
    """Write scikit-learn's handwritten digits, 8 x 8 grey pixels of 0..16, as PNG files."""
    from sklearn.datasets import load_digits  # seconds to import, and only needed here

    digits = load_digits()
    targets: NDArray[np.int64] = digits.target
    for target in np.unique(targets):
        shuffled = sorted(np.flatnonzero(targets == target).tolist(), key=_shuffle_key)
        bounds = [round(bound * len(shuffled)) for bound in SPLIT_BOUNDS]
        for split, places in zip(SPLITS, np.split(shuffled, bounds), strict=True):
            folder = new / split / str(target)
            folder.mkdir(parents=True)
            for place in places:
                pixels = np.round(digits.images[place] * (255 / 16)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"digit_{place:04d}.png")


def _shuffle_key(place: int) -> bytes:
    """Order places as if by chance, and the same with every library and version."""
    return hashlib.sha256(str(place).encode()).digest()


def _make_dogs(url: str, workspace: Path, new: Path) -> None:
    archive = workspace / f"dogImages-{hashlib.sha256(url.encode()).hexdigest()[:12]}.zip"
    if not archive.exists():
        try:
            download(url, archive)
        except UsageError:
            raise
        except KennelError as error:
            raise KennelError(f"{error}; {_OFFLINE}") from error
    try:
        unzip(archive, new, "dogImages")
    except ZipError:
        archive.unlink()
        raise
    if missing := [split for split in SPLITS if not (new / split).is_dir()]:
        archive.unlink()
        raise KennelError(f"{url} holds no dogImages/{missing[0]}/: is it the right archive?")


def _classes(found: Layout) -> tuple[str, ...]:
    return classes_of(found.splits.get("train", found.folder))


def _said_of_likeness(found: Layout) -> Iterator[str]:
    for seen, what, remedy in (
        (str.casefold, "capitals", "on macOS and Windows they would be one folder"),
        (_without_spaces, "spaces or characters that cannot be seen", "join them if they are one"),
    ):
        alike: dict[str, list[str]] = {}
        for name in _classes(found):
            alike.setdefault(seen(name), []).append(name)
        if pairs := [" and ".join(names) for names in alike.values() if len(names) > 1]:
            yield (
                f"{shown(found.folder)}: classes whose names differ in {what} only: "
                f"{some(pairs)}; {remedy}"
            )


def _without_spaces(name: str) -> str:
    return "".join(c for c in name if c.isprintable() and not c.isspace())


def _said_of_missed(found: Layout) -> Iterator[str]:
    """Say what may be meant as a class or a split, and is not taken for one."""
    for folder in dict.fromkeys((found.folder, *found.splits.values())):
        if hidden := hidden_classes(folder):
            yield (
                f"{shown(folder)}: hidden folders left out: {some(hidden)}; "
                "rename those that are classes"
            )
        links = [entry for entry in visible(folder) if entry.is_symlink()]
        if broken := [entry.name for entry in links if not os.path.exists(entry)]:  # noqa: PTH110
            yield f"{shown(folder)}: links that lead nowhere left out: {some(broken)}"


def _said_of_folders_in_classes(found: Layout) -> Iterator[str]:
    """Say that the classes may lie deeper, as in `fold_1/cat`, `fold_1/dog`, `fold_2/cat`, ..."""
    folder = found.splits.get("train", found.folder)
    holders: dict[str, list[str]] = {}
    for name in class_folders(folder):
        for inner in class_folders(folder / name):
            holders.setdefault(inner, []).append(name)
    shared = {inner: names for inner, names in holders.items() if len(names) > 1}
    if len(shared) > 1:
        names = sorted(set().union(*shared.values()))
        yield (
            f"{shown(folder)}: {some(names)} are taken for classes, though they hold folders of "
            f"the same names: {some(list(shared))}; if those are the classes, put them side by "
            "side into one folder"
        )


def _files(found: Layout) -> Iterator[_File]:
    """List a source folder's files, unusable ones too, so that the data report can name them."""
    classes = _classes(found)
    require_classes(found.splits.get("train", found.folder), classes)
    for split, folder in found.splits.items():
        for entry in visible(folder):
            if is_folder(entry):
                require_class(entry, classes)
                # Of what is missing, `train` gives a part.
                is_shared = split == "train" and len(found.splits) < len(SPLITS)
                yield from _files_of_class(Path(entry), None if is_shared else split)
            else:
                yield _File(Path(entry), split, _portable(Path(entry.name)))
    if not found.splits:
        for name in class_folders(found.folder):
            yield from _files_of_class(found.folder / name, None)


def _files_of_class(folder: Path, split: str | None) -> Iterator[_File]:
    for entry in walk(folder):
        path = Path(entry)
        below = _portable(path.relative_to(folder))
        yield _File(path, split, f"{nfc(folder.name)}/{below}")


def _portable(path: Path) -> str:
    """Give a path as UTF-8, which JSON, pages and archives can carry."""
    return "/".join(part if is_text(part) else _escaped(part) for part in path.parts)


def _escaped(name: str) -> str:
    escaped = os.fsencode(name).decode(errors="backslashreplace")
    return escaped if len(escaped.encode()) <= _LONGEST_NAME else _hashed(name)


def _hashed(name: str) -> str:
    """Give a name that stands for another one, with its ending if that is a usual one."""
    ending = Path(name).suffix
    kept = ending if len(ending) <= 5 and is_text(ending) else ""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32] + kept


def _listing(folder: Path, files: Sequence[_File], output: Path) -> str:
    """Digest names, sizes, times and inodes of files, without opening them.

    What is copied to another disk may be written over, and given its time back: only the time of
    the inode's own change tells. Where files are linked, that is the linking, and one sees through.
    """
    disk = next(path for path in (output, *output.parents) if path.exists()).stat().st_dev
    rows = []
    for file in files:
        path = file.source
        status = path.stat() if path.exists() else path.lstat()
        name = path.relative_to(folder).as_posix()
        changed = status.st_ctime_ns if status.st_dev != disk else 0
        what = (status.st_size, status.st_mtime_ns, status.st_ino, changed)
        rows.append((name, file.split or "", file.place, *what))
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def _make_from_folder(found: Layout, files: Sequence[_File], _workspace: Path, new: Path) -> None:
    for name in _classes(found) if found.splits else ():
        (new / "train" / name).mkdir(parents=True)
    taken: set[str] = set()
    for file, split in zip(files, _splits_of(found, files), strict=True):
        target = f"{split}/{file.place}"
        if target in taken:  # two folders that are one class
            target = f"{Path(target).parent.as_posix()}/{_hashed(str(file.source))}"
        taken.add(target)
        _place(file.source, new / target)


def _splits_of(found: Layout, files: Sequence[_File]) -> list[str]:
    """Give the split of each file, by its content where nobody has chosen it."""
    missing = {split for split in SPLITS if split not in found.splits}
    splits = []
    with progress("hashing", len(files), "photos") as count:
        for file in files:
            drawn = file.split or _split_by_content(file.source)
            splits.append(drawn if file.split or drawn in missing else "train")
            count(1)
    places = zip(files, splits, strict=True)
    trained = {file.place.split("/")[0] for file, split in places if split == "train"}
    classes = _classes(found)
    if untrained := [name for name in classes if name not in trained and not found.splits]:
        raise UsageError(
            f"too few different photos in {shown(found.folder)} for {some(untrained)}: none falls "
            "to train; add some, or make train/ valid/ test/ yourself"
        )
    return splits


def _split_by_content(file: Path) -> str:
    if not _is_readable(file):
        return "train"
    try:
        with file.open("rb") as body:
            content = body.read(MAX_FILE_BYTES + 1)
    except OSError:  # of a bad sector, say: the data report is to name it
        return "train"
    if len(content) > MAX_FILE_BYTES:  # no photo, and it may have no end
        return "train"
    return split_of(hashlib.sha256(content).hexdigest())


def _is_readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)


def _place(source: Path, target: Path) -> None:
    """Put a file into the data folder without using room for it, where the disks allow."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not _is_readable(source) or not _linked_or_copied(source, target):
        # The data report is to name it, too.
        target.symlink_to(source.absolute())


def _linked_or_copied(source: Path, target: Path) -> bool:
    """Whether a file could be brought there: not if its disk does not give it."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        pass
    else:
        return True
    try:
        shutil.copy2(source, target)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        target.unlink(missing_ok=True)
        return False
    return True


def main() -> None:
    """Make a data folder from a named data set or any folder of photos."""
    parser = ArgumentParser(prog="python -m trainer.sources", description=main.__doc__)
    parser.add_argument("dataset", help="digits, dogs or a folder")
    parser.add_argument("--output", type=Path, required=True, help="the data folder to make")
    parser.add_argument("--archive-url", default=DOGS_URL, help="where dogImages.zip comes from")
    options = parser.parse_args()
    counts = prepare(options.dataset, options.output, options.archive_url)
    listed = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{shown(options.output)}: files: {listed}")


if __name__ == "__main__":
    run_command(main)
