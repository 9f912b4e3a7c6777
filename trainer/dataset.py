"""An ImageFolder (`train/ valid/ test/`, a folder a class) read through the decode-once cache.

    python -m trainer.dataset DIR --cache-dir CACHE --backbone resnet50 --report report.json

fills the cache, checks the data and writes the report.
"""

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import config as configuration
from trainer.cache import CachedImages, Photo, Refused, decode_once
from trainer.errors import ArgumentParser, UsageError, run_command
from trainer.files import json_text, write_json_atomic
from trainer.layout import SPLITS
from trainer.listing import (
    class_folders,
    hidden_classes,
    is_file,
    is_folder,
    left_out,
    visible,
    walk,
    why_no_file,
)
from trainer.names import is_text, nfc, shown, some
from trainer.shards import unpacked

FEW_PHOTOS = 30
"""With fewer, a share of right answers is known to 10 points or worse."""

_NUMBERED = re.compile(r"([0-9]+)\.\s*([^\d\s].*)", re.DOTALL)
_YEAR = re.compile("19..|20..")
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
        classes: Names of the class folders in NFC, sorted; a class's place is its index.
        files: For each split, paths relative to `root` ("train/001.Boxer/a.jpg"), in class order.
        skipped: What is no regular file or lies outside of any class folder.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    skipped: tuple[Skipped, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; if they are numbered, as `001.Boxer`, `002.Beagle`, without the numbers.

        Numbered means: each has a number of its own, all of one width, and a name that begins with
        no digit, for `3.5mm_jack` and `2024.01` are names. Years are no numbers.
        """
        parts = [_NUMBERED.fullmatch(name) for name in self.classes]
        found = [part for part in parts if part]
        labels = tuple(part[2] for part in found)
        numbers = {part[1] for part in found if not _YEAR.fullmatch(part[1])}
        is_numbered = (
            len(numbers) == len(set(labels)) == len(parts) and len(set(map(len, numbers))) == 1
        )
        return labels if is_numbered else self.classes


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


def scan(root: Path, splits: Sequence[str] = SPLITS) -> ImageFolder:
    """List the files of the splits asked for; nothing below the other splits is listed or opened.

    Class names always come from the folders in `train/`, so that indices never depend on `splits`.

    Raises:
        UsageError: A folder is missing, or a split has a class that `train` lacks.
    """
    missing = [name for name in dict.fromkeys(("train", *splits)) if not (root / name).is_dir()]
    if missing:
        lacking = ", ".join(f"{name}/" for name in missing)
        raise UsageError(
            f"{shown(root)} has no {lacking}: a data folder holds "
            "train/, valid/ and test/, each with a folder a class; "
            "`python -m trainer.sources FOLDER --output DIR` makes one of any folder of photos"
        )
    classes = classes_of(root / "train")
    files: dict[str, tuple[str, ...]] = {}
    skipped: list[Skipped] = []
    for split in splits:
        paths: list[str] = []
        for name in hidden_classes(root / split):
            skipped.append(
                Skipped(f"{split}/{name}", "a hidden folder: rename it if it is a class")
            )
        for folder in sorted(visible(root / split), key=lambda entry: nfc(entry.name)):
            if not is_folder(folder):
                skipped.append(Skipped(f"{split}/{folder.name}", "not in a class folder"))
                continue
            require_class(folder, classes)
            for entry in walk(Path(folder)):
                path = Path(entry).relative_to(root).as_posix()
                if is_file(entry):
                    paths.append(path)
                else:
                    skipped.append(Skipped(path, why_no_file(entry)))
        files[split] = tuple(paths)
    return ImageFolder(root, classes, files, tuple(skipped))


def classes_of(folder: Path) -> tuple[str, ...]:
    """Give the names of the class folders in a folder, in NFC and sorted.

    Raises:
        UsageError: A name is not UTF-8, which no label could show.
    """
    names = class_folders(folder)
    if odd := [name for name in names if not is_text(name)]:
        raise UsageError(
            f"{shown(folder)}: the name of the class folder {odd[0]!r} is not UTF-8: rename it, "
            "or all with `convmv -f latin1 -t utf8 -r --notest FOLDER`"
        )
    return tuple(sorted(set(map(nfc, names))))


def require_classes(folder: Path, classes: Sequence[str]) -> None:
    """Check that there is something to tell apart.

    Raises:
        UsageError: There are fewer than two classes.
    """
    if len(classes) < 2:
        found = f"only the class {shown(classes[0])}" if classes else "no class folder"
        raise UsageError(f"{shown(folder)} holds {found}: to tell classes apart takes two or more")


def require_class(folder: os.DirEntry[str], classes: Sequence[str]) -> None:
    """Check that a class folder of a split is one of the classes of `train`.

    Raises:
        UsageError: It is not.
    """
    name = nfc(folder.name)
    if name in classes:
        return
    alike = [known for known in classes if known.casefold() == name.casefold()]
    remedy = f"rename it to {alike[0]!r}" if alike else "add it there or remove it here"
    raise UsageError(f"{shown(folder.path)}: train/ has no class {name!r}; {remedy}")


def said_of_systems(folder: Path) -> Iterator[str]:
    """Say, in a line if any, what systems and tools have left in a folder and is no data."""
    if counts := left_out(folder):
        names = some([f"{count} {name}" for name, count in counts.most_common()])
        yield f"{shown(folder)}: left out what systems and tools put there: {names}"


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
    _require_access(root)
    folder = scan(unpacked(root, cache_dir, splits), splits)
    require_classes(folder.root / "train", folder.classes)
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
            *(len(skipped), len(files) + len(folder.skipped), shown(root)),
            *(shown(skipped[0].file), skipped[0].reason),
        )
    for line in _said_of_copies(photos, report):
        _log.warning("%s", line)
    _require_photos(folder, splits, photos)
    return Dataset(
        root,
        folder.classes,
        folder.labels,
        {split: _split(folder, pixels, _of_split(photos, split)) for split in splits},
    )


def _require_access(root: Path) -> None:
    try:
        (root / "train").stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # `scan` says what is missing
    except OSError as error:
        raise UsageError(f"cannot read {shown(root)}: {error.strerror}") from error


def _split_of(file: str) -> str:
    return file.split("/")[0]


def _class_of(file: str) -> str:
    return nfc(file.split("/")[1])


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
            raise UsageError(f"{shown(folder.root / split)} has no readable photo: add some")
        if split != "train":
            continue
        present = set(map(_class_of, of_split))
        if empty := [name for name in folder.classes if name not in present]:
            raise UsageError(
                f"no readable photo in {shown(folder.root / split)} for {some(empty)}: "
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
    with suppress(OSError):
        if path.read_bytes().decode(errors="replace") == json_text(content):
            return
    write_json_atomic(path, content)


def _copies(photos: Mapping[str, Photo]) -> dict[str, list[str]]:
    """Give the files of each content, by its SHA-256."""
    places: dict[str, list[str]] = {}
    for file, photo in photos.items():
        places.setdefault(photo.sha256, []).append(file)
    return places


def _spread(photos: Mapping[str, Photo], of: Callable[[str], str]) -> dict[str, list[str]]:
    """Give the copies that differ in split or class."""
    return {sha: files for sha, files in _copies(photos).items() if len(set(map(of, files))) > 1}


def _duplicates(photos: Mapping[str, Photo]) -> dict[str, Any]:
    """List photos in several splits or classes; count the repetitions within each split."""
    repeated: Counter[str] = Counter()
    for files in _copies(photos).values():
        per_split = Counter(map(_split_of, files))
        repeated.update({split: count - 1 for split, count in per_split.items()})

    def listed(of: Callable[[str], str]) -> list[dict[str, Any]]:
        return [{"sha256": sha, "files": files} for sha, files in _spread(photos, of).items()]

    return {
        "duplicates": listed(_split_of),
        "contradictions": listed(_class_of),
        "repeated_within_split": dict(repeated),
    }


def _said_of_copies(photos: Mapping[str, Photo], report: Path | None) -> Iterator[str]:
    listed = f"; {shown(report)} lists all" if report else ""
    for of, where, remedy in (
        (_class_of, "classes", "no model can learn both, so remove the wrong copies"),
        (_split_of, "splits", "what is measured on them flatters, so remove copies"),
    ):
        if found := list(_spread(photos, of).values()):
            first = "; ".join(" = ".join(map(shown, files[:3])) for files in found[:3])
            yield f"photos that lie in several {where}: {len(found)} ({first}): {remedy}{listed}"


def _said_of_few(data: Dataset) -> Iterator[str]:
    for name in ("valid", "test"):
        count = len(data.splits[name].paths)
        lacking = sorted(set(data.classes) - set(map(_class_of, data.splits[name].paths)))
        if count < FEW_PHOTOS or lacking:
            none = f", none of {some(lacking)}" if lacking else ""
            yield (
                f"{name}/ has {count} photo{'s' * (count > 1)}{none}: "
                "what is measured on them says little, so add some"
            )


def main() -> None:
    """Fill the cache, check the data and write the report."""
    parser = ArgumentParser(prog="python -m trainer.dataset", description=main.__doc__)
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
    for line in (*said_of_systems(options.folder), *_said_of_few(dataset)):
        _log.warning("%s", line)
    counts = ", ".join(f"{len(split.paths)} {name}" for name, split in dataset.splits.items())
    print(f"{shown(options.folder)}: {len(dataset.classes)} classes; photos: {counts}")


if __name__ == "__main__":
    run_command(main)
