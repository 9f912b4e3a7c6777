import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer import dataset
from trainer.dataset import ImageFolder, load, scan
from trainer.errors import UsageError, run_command

COUNTS = {"train": 3, "valid": 2, "test": 1}
CLASSES = ("001.Boxer", "002.Poodle", "010.Beagle")


@pytest.fixture
def root(tmp_path, save_photo) -> Path:
    """A data folder of three classes, every photo with its own content."""
    seed = 0
    for split, count in COUNTS.items():
        for name in CLASSES:
            for number in range(count):
                save_photo(tmp_path / f"data/{split}/{name}/{number}.png", seed := seed + 1)
    return tmp_path / "data"


def read(root: Path, **options) -> dataset.Dataset:
    return load(root, root.parent / "cache", 32, "bilinear", **options)


def report_of(root: Path) -> dict:
    file = root.parent / "report.json"
    read(root, report=file)
    return json.loads(file.read_text())


def test_splits_hold_photos_in_class_order(root):
    data = read(root)
    assert data.root == root
    assert data.classes == CLASSES
    assert data.labels == ("Boxer", "Poodle", "Beagle")
    assert list(data.splits) == ["train", "valid", "test"]
    valid = data.splits["valid"]
    assert valid.paths == tuple(f"valid/{name}/{n}.png" for name in CLASSES for n in range(2))
    assert valid.targets.dtype == np.int64
    assert valid.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(valid.images) == len(set(valid.digests)) == 6
    with Image.open(root / valid.paths[3]) as photo:
        np.testing.assert_array_equal(valid.images[3], photo)


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (("001.Boxer", "133.Poodle"), ("Boxer", "Poodle")),
        (("0", "1"), ("0", "1")),
        (("1.", "3d", "v1.2"), ("1.", "3d", "v1.2")),
        (("1.cat", "2.cat"), ("1.cat", "2.cat")),
        (("3.5mm_jack", "6.3mm_jack"), ("3.5mm_jack", "6.3mm_jack")),
        (("3.5mm_jack", "usb"), ("3.5mm_jack", "usb")),
        (("2024.01", "2024.02"), ("2024.01", "2024.02")),
        (("2024.Jan", "2024.Feb"), ("2024.Jan", "2024.Feb")),
        (("1.Bundesliga", "Regionalliga"), ("1.Bundesliga", "Regionalliga")),
        (("1.cat", "10.dog"), ("1.cat", "10.dog")),
        (("001.cat", "02.dog"), ("001.cat", "02.dog")),
        (("001.cat", "002_dog"), ("001.cat", "002_dog")),
        (("٠.cat", "١.dog"), ("٠.cat", "١.dog")),  # noqa: RUF001
        (("1. cat", "2.\tdog"), ("cat", "dog")),
        (("1. ", "2.dog"), ("1. ", "2.dog")),
        (("1. 5 mm", "2.dog"), ("1. 5 mm", "2.dog")),
        (("2023.Spring", "2024.Autumn"), ("2023.Spring", "2024.Autumn")),
        (("01.Écureuil", "02.Zèbre"), ("Écureuil", "Zèbre")),
    ],
)
def test_labels_lose_their_number_but_stay_distinct(folders, labels):
    assert ImageFolder(Path(), folders, {}, ()).labels == labels


@given(st.sets(st.text(min_size=1), min_size=1))
def test_every_class_has_a_label_of_its_own(names):
    labels = ImageFolder(Path(), tuple(sorted(names)), {}, ()).labels
    assert len(set(labels)) == len(names)
    assert all(labels)


def test_only_the_splits_asked_for_are_opened_or_listed(root, opened):
    opened.clear()
    data = read(root, splits=("train", "valid"), report=root.parent / "report.json")
    assert list(data.splits) == ["train", "valid"]
    assert len(opened.below(root / "valid")) >= 6
    assert opened.below(root / "test") == []
    assert scan(root, ("valid",)).files.keys() == {"valid"}
    shutil.rmtree(root / "test")
    assert list(read(root, splits=("train", "valid")).splits) == ["train", "valid"]


def test_indices_do_not_depend_on_the_splits_asked_for(root):
    shutil.rmtree(root / "test/001.Boxer")
    data = read(root, splits=("test",))
    assert data.classes == CLASSES
    assert data.splits["test"].targets.tolist() == [1, 2]


def test_desktop_files_are_ignored_and_others_that_are_no_photo_are_listed(root, caplog):
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
        (root / "train/001.Boxer" / name).write_bytes(b"junk")
    (root / "valid/.ipynb_checkpoints").mkdir()
    (root / "train/001.Boxer/notes.txt").write_text("no photo")
    (root / "train/stray.png").write_bytes((root / "train/001.Boxer/0.png").read_bytes())
    (root / "train/001.Boxer/gone.png").symlink_to(root / "nowhere")
    (root / "train/001.Boxer/loop").symlink_to(root)
    (root / "train/001.Boxer/null").symlink_to("/dev/null")
    os.mkfifo(root / "train/001.Boxer/pipe")
    with (root / "test/001.Boxer/cut.png").open("wb") as file:
        file.write((root / "test/001.Boxer/0.png").read_bytes()[:99])
    report = report_of(root)
    reasons = {entry["file"]: entry["reason"] for entry in report["skipped"]}
    assert reasons == {
        "train/stray.png": "not in a class folder",
        "train/001.Boxer/gone.png": "a link that leads nowhere: mend or remove it",
        "train/001.Boxer/loop": (
            "a link to a folder, which is not followed: put the folder itself there"
        ),
        "train/001.Boxer/pipe": "neither a file nor a link to one: remove it",
        "train/001.Boxer/null": "a link to what is no file: remove it",
        "train/001.Boxer/notes.txt": "not a JPEG, PNG or WebP image, or its header is damaged",
        "test/001.Boxer/cut.png": "image is truncated: copy it again",
    }
    assert report["splits"] == {"train": 9, "valid": 6, "test": 3}
    (warning,) = caplog.records
    assert warning.getMessage().startswith("7 of 25 files in")


def test_sound_data_gives_no_warning(root, caplog):
    read(root)
    assert caplog.records == []


def test_links_and_nested_folders_are_read(root, tmp_path, save_photo):
    save_photo(tmp_path / "elsewhere/linked.png", 77)
    (root / "train/001.Boxer/linked.png").symlink_to(tmp_path / "elsewhere/linked.png")
    save_photo(root / "train/001.Boxer/puppies/young/0.png", 78)
    save_photo(tmp_path / "elsewhere/class/a.png", 79)
    for split in COUNTS:
        (root / split / "020.Pug").symlink_to(tmp_path / "elsewhere/class")
    assert {
        "train/001.Boxer/linked.png",
        "train/001.Boxer/puppies/young/0.png",
        "train/020.Pug/a.png",
    } < set(read(root).splits["train"].paths)


def test_report_counts_conversions_and_duplicates(root):
    grey = Image.new("CMYK", (40, 40), (1, 2, 3, 4))
    grey.save(root / "train/002.Poodle/print.jpg")
    shutil.copy(root / "train/001.Boxer/0.png", root / "test/010.Beagle/same.png")
    shutil.copy(root / "valid/001.Boxer/0.png", root / "valid/001.Boxer/again.png")
    report = report_of(root)
    assert report["root"] == str(root)
    assert report["classes"]["002.Poodle"] == {"train": 4, "valid": 2, "test": 1}
    assert report["classes"]["010.Beagle"] == {"train": 3, "valid": 2, "test": 2}
    assert report["converted"] == [{"file": "train/002.Poodle/print.jpg", "how": "CMYK to RGB"}]
    (duplicate,) = report["duplicates"]
    assert duplicate["files"] == ["train/001.Boxer/0.png", "test/010.Beagle/same.png"]
    assert report["repeated_within_split"] == {"train": 0, "valid": 1, "test": 0}
    assert report["fingerprint"] == read(root).fingerprint()


def test_a_photo_in_two_classes_and_one_in_two_splits_are_named(root, caplog):
    shutil.copy(root / "train/001.Boxer/0.png", root / "train/002.Poodle/same.png")
    shutil.copy(root / "valid/001.Boxer/0.png", root / "test/001.Boxer/same\n.png")
    report = report_of(root)
    files = ["train/001.Boxer/0.png", "train/002.Poodle/same.png"]
    (contradiction,) = report["contradictions"]
    assert contradiction["files"] == files
    assert [entry["files"] for entry in report["duplicates"]] == [
        ["valid/001.Boxer/0.png", "test/001.Boxer/same\n.png"]
    ]
    classes, splits = (record.getMessage() for record in caplog.records)
    assert f"several classes: 1 ({files[0]} = {files[1]}): no model can learn both" in classes
    assert classes.endswith(f"; {root.parent / 'report.json'} lists all")
    assert r"several splits: 1 (valid/001.Boxer/0.png = test/001.Boxer/same\n.png)" in splits
    caplog.clear()
    read(root, splits=("train", "valid"))
    (record,) = caplog.records
    assert record.getMessage() == classes.split(";")[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: [shutil.rmtree(p) for p in root.glob("*/00[12]*")],
            "train holds only the class 010.Beagle: to tell classes apart takes two or more",
        ),
        (
            lambda root: [shutil.rmtree(p) for p in root.glob("*/0*")],
            "train holds no class folder",
        ),
        (
            lambda root: (root / "valid/002.Poodle").rename(root / "valid/002.poodle"),
            "train/ has no class '002.poodle'; rename it to '002.Poodle'",
        ),
        (lambda root: shutil.rmtree(root / "valid"), r"has no valid/: .*trainer\.sources"),
        (lambda root: shutil.rmtree(root), "has no train/, valid/, test/"),
        (lambda root: (root / "valid/Cat").mkdir(), r"valid/Cat: train/ has no class 'Cat'"),
        (
            lambda root: [file.write_bytes(b"") for file in root.glob("train/002.Poodle/*")],
            r"no readable photo in .*train for 002\.Poodle",
        ),
        (lambda root: (root / "train/Empty").mkdir(), r"no readable photo in .*train for Empty"),
        (
            lambda root: [file.unlink() for file in root.glob("test/*/*")],
            "test has no readable photo",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(root, spoil, message):
    spoil(root)
    with pytest.raises(UsageError, match=message):
        read(root)


def test_refused_data_is_reported_all_the_same(root):
    for file in root.glob("train/002.Poodle/*"):
        file.write_bytes(b"")
    with pytest.raises(UsageError):
        report_of(root)
    report = json.loads((root.parent / "report.json").read_text())
    assert len(report["skipped"]) == 3


def test_fingerprint_knows_neither_names_nor_times_nor_places(root, tmp_path):
    before = read(root)
    moved = tmp_path / "other/place"
    shutil.copytree(root, moved)
    (moved / "train/001.Boxer/0.png").rename(moved / "train/001.Boxer/zebra.png")
    os.utime(moved / "train/001.Boxer/1.png", (0, 0))
    after = load(moved, tmp_path / "cache2", 16, "bicubic")
    assert after.fingerprint() == before.fingerprint()
    assert after.fingerprint("train") == before.fingerprint("train")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/001.Boxer/0.png").unlink(),
        lambda root: (root / "train/001.Boxer/0.png").rename(root / "train/002.Poodle/9.png"),
        lambda root: (root / "train/001.Boxer/0.png").rename(root / "valid/001.Boxer/9.png"),
        lambda root: Image.new("RGB", (50, 50)).save(root / "train/001.Boxer/0.png"),
        lambda root: shutil.copy(
            root / "train/001.Boxer/0.png", root / "train/001.Boxer/again.png"
        ),
    ],
    ids=["removed", "other class", "other split", "other content", "repeated"],
)
def test_fingerprint_changes_with_the_data(root, change):
    before = read(root)
    change(root)
    after = read(root)
    assert after.fingerprint() != before.fingerprint()
    assert after.fingerprint("train") != before.fingerprint("train")
    assert after.fingerprint("test") == before.fingerprint("test")


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "trainer.dataset", *map(str, arguments)],
        cwd=Path(dataset.__file__).parents[1],
        capture_output=True,
        text=True,
    )


def test_command_line_writes_the_report(root, tmp_path):
    options = (
        "--cache-dir",
        tmp_path / "cache",
        "--image-size",
        32,
        "--report",
        tmp_path / "r.json",
    )
    shutil.rmtree(root / "test/010.Beagle")
    (root / "train/Thumbs.db").touch()
    done = run(root, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{root}: 3 classes; photos: 9 train, 6 valid, 2 test\n"
    few = "what is measured on them says little, so add some"
    assert done.stderr.splitlines() == [
        f"{root}: left out what systems and tools put there: 1 Thumbs.db",
        f"valid/ has 6 photos: {few}",
        f"test/ has 2 photos, none of 010.Beagle: {few}",
    ]
    counts = json.loads((tmp_path / "r.json").read_text())["splits"]
    assert counts == {"train": 9, "valid": 6, "test": 2}


def test_a_report_that_says_the_same_is_left_untouched(root, tmp_path):
    report = tmp_path / "report.json"
    read(root, report=report)
    os.utime(report, (0, 0))
    read(root, report=report)
    assert report.stat().st_mtime == 0
    (root / "test/001.Boxer/0.png").unlink()
    read(root, report=report)
    assert report.stat().st_mtime > 0
    whole = report.read_bytes()
    report.write_bytes(b"\xff\xfe")
    read(root, report=report)
    assert report.read_bytes() == whole


@pytest.fixture
def refused(monkeypatch, capsys):
    """What a wrong command says, in this process: another imports torch for seconds."""

    def say(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["dataset", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_command(dataset.main)
        assert ended.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    return say


def test_command_line_names_a_fault_in_one_line(root, tmp_path, refused):
    shutil.rmtree(root / "train")
    error = refused(root, "--cache-dir", tmp_path / "cache")
    assert error.startswith(f"error: {root} has no train/")
    assert error.count("\n") == 1


@pytest.mark.parametrize("size", [-1, 5000, "large"])
def test_a_senseless_size_is_wrong_usage(root, tmp_path, refused, size):
    assert "--image-size" in refused(root, "--cache-dir", tmp_path / "cache", "--image-size", size)
    assert not (tmp_path / "cache").exists()


def test_names_that_are_no_text_are_read(root):
    raw = os.fsdecode(b"train/001.Boxer/\xff.png")
    (root / "train/001.Boxer/0.png").rename(root / raw)
    assert raw in read(root, report=root.parent / "report.json").splits["train"].paths


def test_dog_photos(tmp_path, caplog):
    dogs = Path(os.environ.get("KENNEL_DOGS", Path(dataset.__file__).parents[1] / "../shared/dogs"))
    if not dogs.is_dir():
        pytest.skip(f"no dog photos in {dogs}: set KENNEL_DOGS")
    with caplog.at_level(logging.WARNING):
        data = load(dogs, tmp_path, 256, "bilinear")
    assert {name: len(split.images) for name, split in data.splits.items()} == {
        "train": 1080,
        "valid": 220,
        "test": 220,
    }
    assert len(data.classes) == 20
    assert data.labels[0] == "Affenpinscher"
    assert {min(image.shape[:2]) for image in data.splits["test"].images} == {256}
    assert caplog.records == []
