"""Make a data folder (`train/ valid/ test/`, a folder a class) from a named data set or any folder.

    python -m trainer.sources digits --output build/data/digits

The folder takes its place in one step, when it is complete; `source.json` in it tells what it was
made from, so that a second run has nothing to do.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.dataset import SPLITS, class_folders, scan, walk
from trainer.download import download
from trainer.errors import KennelError, UsageError, run_command
from trainer.files import write_json_atomic
from trainer.progress import progress
from trainer.unzip import ZipError, unzip
from trainer.workspace import NEW, replacing_folder

DOGS_URL = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"
SPLIT_BOUNDS = (0.70, 0.85)

_FORMAT = 1
_SOURCE = "source.json"
_OFFLINE = "`digits` and any folder of photos work offline"


@dataclass(frozen=True)
class _Source:
    """Where the photos come from.

    Attributes:
        identity: Says, as JSON, whether a data folder made earlier still matches.
        make: Fills its second argument, an empty folder; what it leaves in the first, the
            workspace, is there again after a failure.
    """

    identity: dict[str, Any]
    make: Callable[[Path, Path], None]


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
        raise UsageError(f"{output} holds something else; choose another --output")
    try:
        with replacing_folder(output) as workspace:
            # Another process may have made it while this one waited.
            return _counts_if_current(output, source) or _make(source, workspace)
    except OSError as error:
        raise KennelError(f"cannot make {output}: {error.strerror} ({error.filename})") from error


def _source(dataset: str, output: Path, archive_url: str) -> _Source:
    if dataset == "digits":
        return _Source({"format": _FORMAT, "dataset": dataset}, _make_digits)
    if dataset == "dogs":
        identity = {"format": _FORMAT, "dataset": dataset, "url": archive_url}
        return _Source(identity, partial(_make_dogs, archive_url))
    folder = Path(dataset)
    if not folder.is_dir():
        raise UsageError(f"{dataset} is neither digits nor dogs nor a folder")
    one, other = folder.resolve(), output.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UsageError(f"{output} and {folder} lie in each other; choose another --output")
    files = _files(folder)
    identity = {"format": _FORMAT, "folder": str(one), "listing": _listing(folder, files)}
    return _Source(identity, partial(_make_from_folder, folder, files))


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _counts_if_current(output: Path, source: _Source) -> dict[str, int] | None:
    """Count the files of each split, if they are those that `source` gave."""
    try:
        made = json.loads((output / _SOURCE).read_text())
    except (OSError, ValueError):
        return None
    counts = _count(output)
    return counts if made == {"source": source.identity, "files": counts} else None


def _count(folder: Path) -> dict[str, int]:
    return {
        split: sum(1 for _ in walk(folder / split)) if (folder / split).is_dir() else 0
        for split in SPLITS
    }


def _make(source: _Source, workspace: Path) -> dict[str, int]:
    new = workspace / NEW
    new.mkdir()
    source.make(workspace, new)
    counts = _count(new)
    if empty := [split for split, count in counts.items() if not count]:
        raise UsageError(f"no photo for {', '.join(empty)}: add photos")
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


def _has_splits(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _files(folder: Path) -> tuple[str, ...]:
    """List a source folder's files, unusable ones too, so that the data report can name them."""
    if _has_splits(folder):
        found = scan(folder)
        return (*chain(*found.files.values()), *(skip.file for skip in found.skipped))
    classes = class_folders(folder)
    if len(classes) < 2:
        raise UsageError(
            f"{folder} holds neither train/ valid/ test/ nor two or more class folders"
        )
    entries = chain.from_iterable(walk(folder / name) for name in classes)
    return tuple(Path(entry).relative_to(folder).as_posix() for entry in entries)


def _listing(folder: Path, files: Sequence[str]) -> str:
    """Digest names, sizes and times of files, without opening them."""
    rows = []
    for file in files:
        path = folder / file
        status = path.stat() if path.exists() else path.lstat()
        rows.append((file, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def _make_from_folder(folder: Path, files: Sequence[str], _workspace: Path, new: Path) -> None:
    if _has_splits(folder):
        targets = list(files)
        for split in SPLITS:
            for name in class_folders(folder / split):
                (new / split / name).mkdir(parents=True)
    else:
        targets = _split(folder, files)
    for file, target in zip(files, targets, strict=True):
        _place(folder / file, new / target)


def _split(folder: Path, files: Sequence[str]) -> list[str]:
    """Give the path of each file ("001.Boxer/a.jpg") in the data folder, its split in front."""
    targets = []
    with progress("hashing", len(files), "photos") as count:
        for file in files:
            targets.append(f"{_split_by_content(folder / file)}/{file}")
            count(1)
    trained = {target.split("/")[1] for target in targets if target.startswith("train/")}
    if untrained := [name for name in class_folders(folder) if name not in trained]:
        raise UsageError(
            f"too few photos in {folder} for {', '.join(untrained)}: none falls to train; "
            "add some, or make train/ valid/ test/ yourself"
        )
    return targets


def _split_by_content(file: Path) -> str:
    if not _is_readable(file):
        return "train"
    with file.open("rb") as body:
        return split_of(hashlib.file_digest(body, "sha256").hexdigest())


def _is_readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)


def _place(source: Path, target: Path) -> None:
    """Put a file into the data folder without using room for it, where the disks allow."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not _is_readable(source):
        # The data report is to name it, too.
        target.symlink_to(source.absolute())
        return
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copy2(source, target)


def main() -> None:
    """Make a data folder from a named data set or any folder of photos."""
    parser = argparse.ArgumentParser(prog="python -m trainer.sources", description=main.__doc__)
    parser.add_argument("dataset", help="digits, dogs or a folder")
    parser.add_argument("--output", type=Path, required=True, help="the data folder to make")
    parser.add_argument("--archive-url", default=DOGS_URL, help="where dogImages.zip comes from")
    options = parser.parse_args()
    counts = prepare(options.dataset, options.output, options.archive_url)
    shown = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{options.output}: files: {shown}")


if __name__ == "__main__":
    run_command(main)
