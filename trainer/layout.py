"""How a folder of photos is laid out: which of its folders are splits, and which are classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UsageError
from trainer.listing import class_folders, hidden_classes, is_folder, visible
from trainer.names import nfc, shown, some

SPLITS = ("train", "valid", "test")

# Also in German, French, Spanish, Italian, Portuguese, Dutch, Chinese and Japanese.
_WORDS = {
    "train": (
        *("training", "train", "trn", "entrainement", "entraînement", "apprentissage"),
        *("entrenamiento", "addestramento", "treinamento", "treino", "训练", "訓練", "学習"),
    ),
    "valid": (
        *("validation", "valid", "val", "dev", "vld", "validierung", "validación", "validacion"),
        *("validazione", "validação", "validacao", "validatie", "验证", "驗證", "検証"),
    ),
    "test": ("testing", "test", "tst", "prueba", "teste", "测试", "測試", "テスト"),
}
# What may stand beside the word, as in `training_set`, `seg_train`, `02 Test Images`, `train2017`.
_BESIDE = (
    r"(?:set|data|images?|imgs?|photos?|pictures?|folder|split|seg|s?daten|s?bilder|s?satz|集"
    r"|[\W\d_])*"
)
_NAMES = {
    split: re.compile(f"{_BESIDE}(?:{'|'.join(words)}){_BESIDE}", re.IGNORECASE)
    for split, words in _WORDS.items()
}
_WRAPPER = re.compile(_BESIDE, re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[^\W\d_]+|\d+")
_UNLABELLED = re.compile(
    rf"{_BESIDE}(?:pred|predict|predictions?|unlabell?ed|unsup){_BESIDE}", re.IGNORECASE
)
_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".rar", ".7z")


@dataclass(frozen=True)
class Layout:
    """Where a source's class folders lie.

    Attributes:
        splits: For each split that there is, the folder that holds its class folders; empty when
            the photos are yet to be split.
        folder: Holds the class folders, when there are no splits.
        remarks: What the user should know of it, a line each.
    """

    folder: Path
    splits: Mapping[str, Path]
    remarks: tuple[str, ...]


def split_named(name: str) -> str | None:
    """Give the split that a folder's name usually stands for, if it does."""
    composed = nfc(name)
    return next((split for split, names in _NAMES.items() if names.fullmatch(composed)), None)


def splits_among(names: Sequence[str]) -> dict[str, str]:
    """Give the split of each folder whose name says so, alone or together with another's name.

    `asl_train` beside `asl_test` are splits; without such a companion it may be anything.
    """
    splits = {name: split for name in names if (split := split_named(name))}
    alike: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        words = [word.casefold() for word in _WORD.findall(name)]
        meant = {split for word in words if (split := split_named(word))}
        if name not in splits and len(meant) == 1:
            rest = tuple(word for word in words if not split_named(word))
            alike.setdefault(rest, {})[name] = meant.pop()
    for pairs in alike.values():
        if "train" in pairs.values() and len(set(pairs.values())) > 1:
            splits |= pairs
    return {name: splits[name] for name in names if name in splits}


def find(folder: Path) -> Layout:
    """Find the splits or the classes of a folder of photos, or of the one folder in it.

    A folder is a split when its name says so and it holds class folders. Beside a split there are
    only splits; beside class folders, one that is called as a split is a class, too.

    Raises:
        UsageError: It is laid out in neither way; the message says what to do.
    """
    names = class_folders(folder)
    named = splits_among(names)
    inner = {name: _unwrapped(folder / name, named.get(name)) for name in names}
    if any(class_folders(inner[name]) for name in named):
        return _with_splits(folder, inner, named)
    if len(names) == 1 and not named and class_folders(folder / names[0]):
        found = find(folder / names[0])
        remark = f"the photos are taken from {shown(folder / names[0])}"
        return Layout(found.folder, found.splits, (remark, *found.remarks))
    return _without_splits(folder, names, list(named))


def _unwrapped(folder: Path, split: str | None) -> Path:
    """Step into a folder that only repeats the split's name, as in `seg_train/seg_train`."""
    names = class_folders(folder)
    if split is None or len(names) != 1:
        return folder
    is_same = names[0].casefold() == folder.name.casefold()
    repeats = is_same or split_named(names[0]) == split or _WRAPPER.fullmatch(names[0])
    is_number = names[0].isdecimal()  # a class of digits
    return _unwrapped(folder / names[0], split) if repeats and not is_number else folder


def _with_splits(folder: Path, inner: Mapping[str, Path], named: Mapping[str, str]) -> Layout:
    labelled = [name for name in named if class_folders(inner[name])]
    others = [name for name in inner if name not in named and not _UNLABELLED.fullmatch(name)]
    if others:
        raise UsageError(
            f"{shown(folder)} holds {some(list(named))}, but also {some(others)}: beside splits "
            "there must be no other folder, so move it away, or call it train, valid or test"
        )
    splits: dict[str, Path] = {}
    taken: dict[str, str] = {}
    for name in labelled:
        split = named[name]
        if split in splits:
            raise UsageError(
                f"{shown(folder)} holds {shown(taken[split])} and {shown(name)}, which both stand "
                f"for {split}: join them, or move one away"
            )
        splits[split], taken[split] = inner[name], name
    if "train" not in splits:
        raise UsageError(
            f"{shown(folder)} has no train/ with class folders, but {some(list(inner))}: "
            "put photos for training into train/CLASS/"
        )
    return Layout(folder, splits, tuple(_remarks(folder, inner, taken)))


def _remarks(folder: Path, inner: Mapping[str, Path], taken: Mapping[str, str]) -> list[str]:
    remarks = []
    if renamed := [f"{shown(name)} as {s}" for s, name in taken.items() if name != s]:
        remarks.append(f"{shown(folder)}: {', '.join(renamed)}")
    if unlabelled := [n for n in inner if n not in taken.values() and any(visible(inner[n]))]:
        remarks.append(
            f"{shown(folder)}: {some(unlabelled)} left out: photos without class folders"
        )
    if missing := [split for split in SPLITS if split not in taken]:
        each = "30 % of train" if len(missing) > 1 else "15 % of train"
        remarks.append(f"{shown(folder)}: no {' or '.join(missing)}, so {each} becomes that")
    return remarks


def _without_splits(folder: Path, names: Sequence[str], named: Sequence[str]) -> Layout:
    for name in names:
        if splits := [inner for inner in class_folders(folder / name) if split_named(inner)]:
            raise UsageError(
                f"{shown(folder / name)} holds {some(splits)}: splits come before classes, as in "
                f"train/CLASS/; give the folder that holds the splits, or rearrange it"
            )
    if _are_splits_of_something(folder, names):
        raise UsageError(
            f"{shown(folder)}: {some(list(names))} are called as splits and hold the same folders, "
            "so which is train, and which test? Call them so, join them, or move one away; if they "
            "are classes, put their photos right into them"
        )
    if len(named) == len(names) and named:
        raise UsageError(
            f"{shown(folder)}: {some(list(named))} hold no class folders: "
            "put each photo into a folder that has its class's name, as in train/CLASS/"
        )
    if len(names) < 2:
        raise UsageError(
            f"{shown(folder)} holds neither train/ valid/ test/ nor two or more class folders: "
            f"{_lack(folder, names)}"
        )
    if empty := [name for name in named if not any(visible(folder / name))]:
        raise UsageError(
            f"{shown(folder / empty[0])} is empty: remove it, or fill it with class folders"
        )
    remarks = []
    if named:
        remarks.append(
            f"{shown(folder)}: {some(list(named))} taken for a class, as the folders beside; "
            "if that is a split, put class folders into it"
        )
    files = (entry.name for entry in visible(folder) if not is_folder(entry))
    if loose := [name for name in files if name.lower().endswith(_PHOTOS)]:
        remarks.append(
            f"{shown(folder)}: left out {len(loose)} in no class folder, such as {shown(loose[0])}"
        )
    return Layout(folder, {}, tuple(remarks))


def _are_splits_of_something(folder: Path, names: Sequence[str]) -> bool:
    """Whether folders like `train_A`, `train_B` or `Trains`, `Tests` hold the same classes."""
    words = [{word.casefold().rstrip("s") for word in _WORD.findall(name)} for name in names]
    inner = {tuple(class_folders(folder / name)) for name in names}
    return (
        len(names) > 1
        and all(any(map(split_named, of_name)) for of_name in words)
        and len(inner) == 1
        and len(inner.pop()) > 1
    )


def _lack(folder: Path, names: Sequence[str]) -> str:
    if hidden := hidden_classes(folder):
        return f"hidden folders are left out, so rename {some(hidden)} if they are classes"
    if names:
        return f"only {shown(names[0])}, and to tell classes apart takes two"
    files = [entry.name for entry in visible(folder)]
    if not files:
        return "it is empty"
    if packed := [name for name in files if name.lower().endswith(_PACKED)]:
        return f"unpack {shown(packed[0])} first"
    return "put each photo into a folder that has its class's name"
