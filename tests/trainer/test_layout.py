"""What users call their folders, and what systems and tools leave in them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from trainer import sources
from trainer.dataset import load, scan
from trainer.errors import UsageError, run_command
from trainer.layout import SPLITS, split_named
from trainer.sources import prepare, split_of

Fill = Callable[..., Path]

CATS_AND_DOGS = {split: {"cat", "dog"} for split in SPLITS}


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Make a source: in each of these folders, files of contents of their own."""

    def make(*folders: str, files: int = 4) -> Path:
        source = tmp_path / "source"
        for folder in folders:
            (source / folder).mkdir(parents=True, exist_ok=True)
            for number in range(files):
                content = hashlib.sha256(f"{folder} {number}".encode()).digest()
                (source / folder / f"{number}.jpg").write_bytes(content)
        return source

    return make


def made(source: Path) -> dict[str, set[str]]:
    """Prepare a source; the classes of each split."""
    data = source.parent / "data"
    prepare(str(source), data)
    return {split: {path.name for path in (data / split).iterdir()} for split in SPLITS}


def each(splits: Iterable[str], *classes: str) -> list[str]:
    return [f"{split}/{name}" for split in splits for name in classes]


@pytest.mark.parametrize(
    "splits",
    [
        ("Training", "Validation", "Testing"),
        ("training_set", "validation_set", "test_set"),
        ("TRAIN", "VAL", "TEST"),
        ("trainset", "devset", "testset"),
        ("01 Train Images", "02-Valid-Images", "03.Test.Images"),
        ("seg_train", "seg_valid", "seg_test"),
        ("seg_train/seg_train", "seg_valid/seg_valid", "seg_test/seg_test"),
        ("train/images", "val/images", "test/images"),
        ("train2017", "val2017", "test2017"),
        ("Final_Training/Images", "Final_Validation/Images", "Final_Test/Images"),
        ("asl_train/asl_train", "asl_valid/asl_valid", "asl_test/asl_test"),
        ("bounding_box_train", "bounding_box_val", "bounding_box_test"),
        ("train_small", "valid_small", "test_small"),
        ("dataset/training_set", "dataset/dev", "dataset/test_set"),
        ("Trainingsdaten", "Validierungsdaten", "Testdaten"),
        ("Trainingssatz", "Validierung", "Test-Bilder"),
        ("Entraînement", "Validation", "Test"),
        (unicodedata.normalize("NFD", "entraînement"), "val", "Test"),
        ("entrenamiento", "validación", "prueba"),
        ("treino", "validação", "teste"),
        ("训练集", "验证集", "测试集"),
        ("trn", "vld", "tst"),
        ("archive/Images/train", "archive/Images/valid", "archive/Images/test"),
    ],
)
def test_splits_are_found_by_the_names_that_are_usual(
    fill: Fill, splits: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    source = fill(*each(splits, "cat", "dog"))
    assert made(source) == CATS_AND_DOGS
    if not any("/" in split for split in splits):
        (record,) = caplog.records
        assert all(f"{name} as " in record.getMessage() for name in splits)


def test_usual_names_are_taken_without_a_word(fill: Fill, caplog: pytest.LogCaptureFixture) -> None:
    made(fill(*each(SPLITS, "cat", "dog")))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("splits", "given"),
    [
        (("Training", "Testing"), {"train", "test"}),
        (("train", "validation"), {"train", "valid"}),
        (("train_set",), {"train"}),
    ],
)
def test_a_split_that_is_missing_is_a_part_of_train(
    fill: Fill, splits: tuple[str, ...], given: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = fill(*each(splits, "cat", "dog"), files=40)
    assert made(source) == CATS_AND_DOGS
    for split in set(SPLITS) - given:
        assert f"{split}" in caplog.text
    for name in ("cat", "dog"):
        for path in (source / splits[0] / name).iterdir():
            drawn = split_of(hashlib.sha256(path.read_bytes()).hexdigest())
            split = "train" if drawn in given else drawn
            copies = list((source.parent / "data").glob(f"*/{name}/{path.name}"))
            assert source.parent / "data" / split / name / path.name in [
                copy for copy in copies if copy.read_bytes() == path.read_bytes()
            ]


def test_kaggles_photos_without_labels_are_left_out(
    fill: Fill, caplog: pytest.LogCaptureFixture
) -> None:
    source = fill(*each(("train",), "cat", "dog"), "test/test", "seg_pred/seg_pred", files=40)
    assert made(source) == CATS_AND_DOGS
    assert "seg_pred, test left out: photos without class folders" in caplog.text


@pytest.mark.parametrize("name", ["test", "Train", "val"])
def test_a_class_may_be_called_as_a_split(
    fill: Fill, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert made(fill("plane", "car", name, files=40))["train"] == {"plane", "car", name}
    assert f"{name} taken for a class" in caplog.text


@pytest.mark.parametrize(
    "classes",
    [("bullet_train", "steam_train"), ("dev_board", "test_board"), ("train_1a", "test_2b")],
)
def test_classes_may_have_a_splits_name_in_theirs(fill: Fill, classes: tuple[str, ...]) -> None:
    assert made(fill(*classes, files=40))["train"] == set(classes)


@pytest.mark.parametrize("outer", [("color", "grey"), ("fold_1", "fold_2"), ("p-001", "p-002")])
def test_classes_that_may_lie_deeper_are_said(
    fill: Fill, outer: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    source = fill(*each(outer, "cat", "dog"), files=40)
    assert made(source)["train"] == set(outer)
    (record,) = caplog.records
    assert f"{', '.join(outer)} are taken for classes, though" in record.getMessage()
    assert "same names: cat, dog; if those are the classes" in record.getMessage()


def test_folders_below_classes_are_no_reason_for_a_word(
    fill: Fill, caplog: pytest.LogCaptureFixture
) -> None:
    made(fill("cat/2020", "cat/raw", "dog/2021", "dog/raw", files=40))
    assert not caplog.records


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "more/cat"), "also more: .*call it train, valid or test"),
        (("train/cat", "train/dog", "eval/cat"), "also eval: "),
        (("train/cat", "trainval/cat", "test/cat"), "also trainval: "),
        (("train/cat", "Training/cat", "test/cat"), "both stand for train: join them"),
        (("train", "test"), r"train hold no class folders: .*train/CLASS/|test, train hold no"),
        (("cat_train", "cat_test", "dog_train", "dog_test"), "cat_test, .* hold no class folders"),
        (("trainA", "trainB", "testA", "testB"), "trainA, trainB hold no class folders"),
        (("a_train/cat", "b_train/cat", "a_test/cat", "b_test/cat"), "both stand for t.*: join"),
        (
            ("train_A/cat", "train_A/dog", "train_B/cat", "train_B/dog"),
            "train_A, train_B are called",
        ),
        (("Trains/cat", "Trains/dog", "Tests/cat", "Tests/dog"), "which is train, and which test"),
        ((".5mm", ".7mm", "1mm"), r"hidden folders are left out, so rename \.5mm, \.7mm"),
        ((".5mm", ".7mm"), r"rename \.5mm, \.7mm if they are classes"),
        (("test/cat", "val/cat"), "no train/ with class folders, but test, val"),
        (("train", "test/cat"), "no train/ with class folders"),
        (("images/train", "images/val", "labels/train"), "images holds train, val: splits come"),
        (("cat/train", "cat/test", "dog/train"), "cat holds test, train: splits come before"),
        (("cat",), "only cat, and to tell classes apart takes two"),
        (("train/cat", "valid/cat", "test/cat"), "only the class cat: to tell classes apart"),
        (("train/cat", "train/dog", "valid/Cat"), "no class 'Cat'; rename it to 'cat'"),
        ((".",), "put each photo into a folder that has its class's name"),
    ],
)
def test_what_is_laid_out_otherwise_is_refused_with_the_remedy(
    fill: Fill, folders: tuple[str, ...], message: str
) -> None:
    source = fill(*folders)
    with pytest.raises(UsageError, match=message):
        made(source)
    assert not (source.parent / "data").exists()


def test_an_empty_folder_and_one_that_is_packed_say_so(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(UsageError, match="it is empty"):
        made(tmp_path / "source")
    (tmp_path / "source/photos.ZIP").touch()
    with pytest.raises(UsageError, match=r"unpack photos\.ZIP first"):
        made(tmp_path / "source")
    with pytest.raises(UsageError, match="is a file: give a folder of photos; unpack an archive"):
        made(tmp_path / "source/photos.ZIP")
    with pytest.raises(UsageError, match="~nobody-at-all/x is neither digits nor"):
        prepare("~nobody-at-all/x", tmp_path / "data")


@pytest.mark.parametrize("name", ["trains", "value", "testimony", "contest", "deviled eggs", "set"])
def test_other_words_are_no_splits(name: str) -> None:
    assert split_named(name) is None


SYSTEMS = (
    *(".DS_Store", "._0.jpg", "Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "@Recycle"),
    *(".Trashes", ".Spotlight-V100", "__MACOSX", "lost+found", "$RECYCLE.BIN", ".git"),
    *("System Volume Information", ".ipynb_checkpoints", ".thumbnails", ".picasaoriginals"),
    *(".@__thumb", "ehthumbs.db", "Icon\r", ".fseventsd", ".Trash-1000", "@tmp"),
    *("LOST.DIR", "FOUND.001", "@sharebin", "TheVolumeSettingsFolder", "$WINDOWS.~BT"),
)


@pytest.mark.parametrize("place", ["", "cat"])
def test_what_systems_and_tools_leave_is_no_data_and_said_once(
    fill: Fill, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = fill("cat", "dog", files=40)
    for name in SYSTEMS:
        folder = source / place / name
        folder.mkdir()
        (folder / "SYNOPHOTO_THUMB_M.jpg").write_bytes(name.encode())
    assert made(source)["train"] == {"cat", "dog"}
    assert len(list((source.parent / "data").rglob("*.jpg"))) == 80
    (record,) = caplog.records
    assert "left out what systems and tools put there: 1 " in record.getMessage()
    assert f"and {len(SYSTEMS) - 5} more" in record.getMessage()


def test_a_data_folder_holds_no_class_of_a_system(fill: Fill) -> None:
    source = fill(*each(SPLITS, "cat", "dog"))
    for name in ("@eaDir", "lost+found"):
        (source / "train" / name).mkdir()
        (source / "train/cat" / name).mkdir()
        (source / "train/cat" / name / "0.jpg").touch()
    assert scan(source).classes == ("cat", "dog")
    assert len(scan(source).files["train"]) == 8


ACCENTED = ("Zèbre", "Écureuil")


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def test_one_spelling_is_one_class_in_every_unicode_form(fill: Fill, save_photo) -> None:
    source = fill(files=0)
    for number, (split, form) in enumerate(zip(SPLITS, ("NFD", "NFC", "NFD"), strict=True)):
        for name in ACCENTED:
            folder = source / split / unicodedata.normalize(form, name)
            save_photo(folder / "0.png", 10 * number + len(name))
    for root in (source, source.parent / "data"):
        data = load(root, source.parent / "cache", 32, "bilinear")
        assert data.classes == data.labels == ACCENTED
        assert [split.targets.tolist() for split in data.splits.values()] == [[0, 1]] * 3
        prepare(str(source), source.parent / "data")


def test_two_folders_that_are_one_class_keep_all_their_files(fill: Fill) -> None:
    source = fill(ACCENTED[0], decomposed(ACCENTED[0]), "dog", files=40)
    assert made(source)["train"] == {ACCENTED[0], "dog"}
    contents = {path.read_bytes() for path in source.rglob("*.jpg")}
    copies = [path.read_bytes() for path in (source.parent / "data").rglob("*.jpg")]
    assert len(copies) == 120
    assert set(copies) == contents


def test_classes_that_differ_in_capitals_are_said(
    fill: Fill, caplog: pytest.LogCaptureFixture
) -> None:
    assert made(fill("A", "a", "b", files=40))["train"] == {"A", "a", "b"}
    assert "differ in capitals only: A and a; on macOS and Windows" in caplog.text


@pytest.mark.parametrize("other", ["cat ", " cat", "cat\u200b", "c at"])
def test_classes_that_look_alike_are_said(
    fill: Fill, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert made(fill("cat", other, "dog", files=40))["train"] == {"cat", other, "dog"}
    (record,) = caplog.records
    assert "differ in spaces or characters that cannot be seen only: " in record.getMessage()


def test_a_hidden_class_and_a_link_to_nothing_are_said(
    fill: Fill, caplog: pytest.LogCaptureFixture
) -> None:
    source = fill("cat", "dog", ".5mm", ".thumbnails", files=40)
    (source / "fox").symlink_to("gone")
    assert made(source)["train"] == {"cat", "dog"}
    said = [record.getMessage().removeprefix(f"{source}: ") for record in caplog.records]
    assert said == [
        "hidden folders left out: .5mm; rename those that are classes",
        "links that lead nowhere left out: fox",
        "left out what systems and tools put there: 1 .thumbnails",
    ]


def test_a_hidden_class_of_a_data_folder_is_listed(fill: Fill) -> None:
    source = fill(*each(SPLITS, "cat", "dog"), "train/.5mm")
    assert [(skip.file, skip.reason) for skip in scan(source).skipped] == [
        ("train/.5mm", "a hidden folder: rename it if it is a class")
    ]


def test_a_class_whose_name_is_no_text_is_refused_at_once(fill: Fill) -> None:
    source = fill("cat", "dog")
    (source / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(UsageError, match=r"'caf\\udce9' is not UTF-8: rename it"):
        made(source)


ODD = (
    *(b"caf\xe9.jpg", b"\xff\xfe", b"new\nline.jpg", b"tab\t.jpg", b"\x1b[31m.jpg", b"dot. .jpg."),
    *(b" ", "🐕 & 犬.jpg".encode(), b"\xe9" * 255, ("ü" * 127).encode(), b"'\";|<$\\*%().jpg"),
)


def test_every_name_of_a_photo_survives(fill: Fill) -> None:
    source = fill("cat", "dog", files=40)
    for number, name in enumerate(ODD):
        (source / "cat" / os.fsdecode(name)).write_bytes(b"odd %d" % number)
    made(source)
    names = [path.name for path in (source.parent / "data").glob("*/cat/*")]
    assert len(names) == 40 + len(ODD)
    assert all(name.encode() and len(name.encode()) <= 255 for name in names)
    assert r"caf\xe9.jpg" in names
    assert "new\nline.jpg" in names


@pytest.mark.parametrize(
    "name", ["a b", "a(b)", "a&b;c:d", "'\"|<>$\\*?", "100 %", "für ☂", "new\nline", "-x", "~"]
)
def test_a_path_may_have_any_name(
    fill: Fill, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    source = fill("cat", "dog", files=40).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    arguments = ["sources", "--output", f"out/{name}/", "--", name]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", arguments)
        run_command(sources.main)
        assert capsys.readouterr().out.count("\n") == 1
    assert len(list((tmp_path / "out" / name).glob("*/*/*.jpg"))) == 80
    shutil.rmtree(source)


def test_a_link_to_a_folder_and_a_home_are_folders(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill("cat", "dog", files=40)
    (source / "cat/circle").symlink_to("circle")
    (tmp_path / "link").symlink_to(source)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/link", f"{tmp_path}/link/"):
        counts = prepare(given, tmp_path / "data")
        assert sum(counts.values()) == 81  # the circle too, for the report to name


def test_a_fault_is_one_line_of_the_command(fill: Fill) -> None:
    source = fill("train/cat", "Training/cat\nline")
    done = subprocess.run(
        [sys.executable, "-m", "trainer.sources", str(source), "--output", "out"],
        cwd=Path(sources.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_what_was_made_by_another_rule_is_made_again(fill: Fill) -> None:
    source = fill("cat", "dog", files=40)
    made(source)
    record = source.parent / "data/source.json"
    content = json.loads(record.read_text())
    content["source"]["format"] = 1
    record.write_text(json.dumps(content))
    (source.parent / "data/train/cat/extra").touch()
    made(source)
    assert not (source.parent / "data/train/cat/extra").exists()
