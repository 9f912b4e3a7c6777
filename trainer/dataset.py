"""An ImageFolder (`train/ valid/ test/`, a folder a class) read through the decode-once cache.

    python -m trainer.dataset DIR --cache-dir CACHE --backbone resnet50 --report report.json

fills the cache, checks the data and writes the report.
"""

import argparse
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import config as configuration
from trainer.cache import CachedImages, Photo, Refused, decode_once
from trainer.errors import UsageError, run_command
from trainer.files import json_text, write_json_atomic
from trainer.shards import unpacked

SPLITS = ("train", "valid", "test")

_NOT_DATA = {"thumbs.db", "desktop.ini"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """A file that gives no photo: its path relative to the data folder, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class ImageFolder:
    """What lies in a data folder, by name only: no file has been opened.

    Attributes:
        root: The folder.
        classes: Names of the class folders, sorted; a class's place is its index.
        files: For each split, paths relative to `root` ("train/001.Boxer/a.jpg"), in class order.
        skipped: What is no regular file or lies outside of any class folder.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    skipped: tuple[Skipped, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names without a leading "NNN.", unless two classes would then share a name."""
        labels = tuple(re.sub(r"^\d+\.(?=.)", "", name) for name in self.classes)
        return labels if len(set(labels)) == len(labels) else self.classes


@dataclass(frozen=True)
class Split:
    """The readable photos of one split.

    Attributes:
        images: Pixels; item i is uint8 [height, width, 3].
        targets: Class indices, int64 [N].
        paths: Paths relative to the data folder.
        digests: SHA-256 of each file.
    """

    images: CachedImages
    targets: NDArray[np.int64]
    paths: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A checked data folder; `splits` holds those that were asked for."""

    root: Path
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    splits: Mapping[str, Split]

    def fingerprint(self, split: str | None = None) -> str:
        """Give a SHA-256 of one split, or of all that are loaded.

        It covers split, class and content of each photo: no file name, time or machine changes it.
        """
        names = self.splits if split is None else (split,)
        return fingerprint_of(
            (path, digest)
            for name in names
            for path, digest in zip(self.splits[name].paths, self.splits[name].digests, strict=True)
        )


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name, without hidden files and those that desktops leave behind.

    Raises:
        UsageError: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            kept = (e for e in entries if e.name[0] != "." and e.name.lower() not in _NOT_DATA)
            return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"cannot list {folder}: {error.strerror}") from error


def class_folders(folder: Path) -> list[str]:
    """List the names of the visible folders in `folder`, sorted."""
    return [entry.name for entry in visible(folder) if entry.is_dir()]


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Give the visible entries below `folder` but folders; links to folders are not followed."""
    for entry in visible(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry))
        else:
            yield entry


def scan(root: Path, splits: Sequence[str] = SPLITS) -> ImageFolder:
    """List the files of the splits asked for; nothing below the other splits is listed or opened.

    Class names always come from the folders in `train/`, so that indices never depend on `splits`.

    Raises:
        UsageError: A folder is missing, or a split has a class that `train` lacks.
    """
    missing = [name for name in dict.fromkeys(("train", *splits)) if not (root / name).is_dir()]
    if missing:
        raise UsageError(
            f"{root} has no {', '.join(f'{name}/' for name in missing)}: a data folder holds "
            "train/, valid/ and test/, each with a folder a class; "
            "`python -m trainer.sources FOLDER --output DIR` splits one that has only class folders"
        )
    classes = class_folders(root / "train")
    files: dict[str, tuple[str, ...]] = {}
    skipped: list[Skipped] = []
    for split in splits:
        paths: list[str] = []
        for folder in visible(root / split):
            if not folder.is_dir():
                skipped.append(Skipped(f"{split}/{folder.name}", "not in a class folder"))
                continue
            if folder.name not in classes:
                raise UsageError(
                    f"{folder.path}: train/ has no class {folder.name!r}; "
                    "add it there or remove it here"
                )
            for entry in walk(Path(folder)):
                path = Path(entry).relative_to(root).as_posix()
                if entry.is_file():
                    paths.append(path)
                else:
                    skipped.append(Skipped(path, "neither a file nor a link to one"))
        files[split] = tuple(paths)
    return ImageFolder(root, tuple(classes), files, tuple(skipped))


def load(
    root: Path,
    cache_dir: Path,
    resize: int,
    interpolation: str,
    splits: Sequence[str] = SPLITS,
    report: Path | None = None,
    workers: int | None = None,
) -> Dataset:
    """Read the splits asked for, through the cache; a file that has not changed is not opened.

    A file that is no readable photo is skipped; one warning says how many are.

    Args:
        root: Folder with a folder a split, each with a folder a class; or their shards, which
            are unpacked once into the cache.
        cache_dir: Folder of the decode-once stores.
        resize: Length in pixels of a photo's shorter side.
        interpolation: "bilinear" or "bicubic".
        splits: Which of `SPLITS` to read; the others are not touched.
        report: JSON file to write what was found to, also when the data is then refused.
        workers: Decoding threads; fitted to the machine when None.

    Raises:
        UsageError: A folder or class is missing or has no readable photo.
        KennelError: The cache cannot be written, or a shard is missing or damaged.
    """
    folder = scan(unpacked(root, cache_dir, splits), splits)
    files = [file for split in splits for file in folder.files[split]]
    paths = [folder.root / file for file in files]
    pixels, entries = decode_once(paths, cache_dir, resize, interpolation, workers)
    found = dict(zip(files, entries, strict=True))
    photos = {file: entry for file, entry in found.items() if isinstance(entry, Photo)}
    skipped = [
        *folder.skipped,
        *(Skipped(file, e.reason) for file, e in found.items() if isinstance(e, Refused)),
    ]
    if report:
        _write_report(report, _report(folder, splits, photos, skipped))
    if skipped:
        _log.warning(
            "%d of %d files in %s were skipped, the first %s: %s",
            *(len(skipped), len(files) + len(folder.skipped), root),
            *(skipped[0].file, skipped[0].reason),
        )
    _require_photos(folder, splits, photos)
    return Dataset(
        root,
        folder.classes,
        folder.labels,
        {split: _split(folder, pixels, _of_split(photos, split)) for split in splits},
    )


def _split_of(file: str) -> str:
    return file.split("/")[0]


def _class_of(file: str) -> str:
    return file.split("/")[1]


def _of_split(photos: Mapping[str, Photo], split: str) -> dict[str, Photo]:
    return {file: photo for file, photo in photos.items() if _split_of(file) == split}


def _split(folder: ImageFolder, pixels: Path, photos: Mapping[str, Photo]) -> Split:
    index = {name: place for place, name in enumerate(folder.classes)}
    return Split(
        images=CachedImages(pixels, tuple(photos.values())),
        targets=np.array([index[_class_of(file)] for file in photos], dtype=np.int64),
        paths=tuple(photos),
        digests=tuple(photo.sha256 for photo in photos.values()),
    )


def _require_photos(
    folder: ImageFolder, splits: Sequence[str], photos: Mapping[str, Photo]
) -> None:
    for split in splits:
        of_split = _of_split(photos, split)
        if not of_split:
            raise UsageError(f"{folder.root / split} has no readable photo: add some")
        if split != "train":
            continue
        present = set(map(_class_of, of_split))
        if empty := [name for name in folder.classes if name not in present]:
            raise UsageError(
                f"no readable photo in {folder.root / split} for {', '.join(empty)}: "
                "add some or remove the class"
            )


def fingerprint_of(contents: Iterable[tuple[str, str]]) -> str:
    """Give `Dataset.fingerprint` of readable photos: their paths and the files' SHA-256."""
    rows = sorted((_split_of(file), _class_of(file), sha256) for file, sha256 in contents)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _report(
    folder: ImageFolder,
    splits: Sequence[str],
    photos: Mapping[str, Photo],
    skipped: Sequence[Skipped],
) -> dict[str, Any]:
    counts = Counter((_class_of(file), _split_of(file)) for file in photos)
    return {
        "root": str(folder.root),
        "fingerprint": fingerprint_of((file, photo.sha256) for file, photo in photos.items()),
        "splits": {split: len(_of_split(photos, split)) for split in splits},
        "classes": {name: {s: counts[name, s] for s in splits} for name in folder.classes},
        "converted": [
            {"file": file, "how": photo.note} for file, photo in photos.items() if photo.note
        ],
        "skipped": [asdict(skip) for skip in skipped],
        **_duplicates(photos),
    }


def _write_report(path: Path, content: dict[str, Any]) -> None:
    """Write the report, or leave one that says the same untouched: make goes by its time."""
    if not path.exists() or path.read_text() != json_text(content):
        write_json_atomic(path, content)


def _duplicates(photos: Mapping[str, Photo]) -> dict[str, Any]:
    """List the photos that lie in several splits; count the repetitions within each split."""
    places: dict[str, list[str]] = {}
    for file, photo in photos.items():
        places.setdefault(photo.sha256, []).append(file)
    per_split = {sha256: Counter(map(_split_of, files)) for sha256, files in places.items()}
    repeated: Counter[str] = Counter()
    for counts in per_split.values():
        repeated.update({split: count - 1 for split, count in counts.items()})
    return {
        "duplicates": [
            {"sha256": sha256, "files": files}
            for sha256, files in places.items()
            if len(per_split[sha256]) > 1
        ],
        "repeated_within_split": dict(repeated),
    }


def main() -> None:
    """Fill the cache, check the data and write the report."""
    parser = argparse.ArgumentParser(prog="python -m trainer.dataset", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder with train/ valid/ test/")
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="JSON file to write")
    configuration.add_arguments(parser)
    options = parser.parse_args()
    # Imported here since it takes torch, and who reads photos through this module needs none.
    from trainer.backbones import preprocess_for

    scaled = preprocess_for(configuration.from_arguments(options))
    dataset = load(
        options.folder,
        options.cache_dir,
        scaled.resize,
        scaled.interpolation,
        report=options.report,
    )
    counts = ", ".join(f"{len(split.paths)} {name}" for name, split in dataset.splits.items())
    print(f"{options.folder}: {len(dataset.classes)} classes; photos: {counts}")


if __name__ == "__main__":
    run_command(main)
