import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from trainer import download, sources
from trainer.dataset import load
from trainer.errors import KennelError, UsageError
from trainer.layout import SPLITS
from trainer.sources import prepare, split_of

TEST_PLACES_SHA256 = "8e1f47ea7c87bcb2a92c4474c226a6bd7fe076065bfae629f59f73639ade2fb3"


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's inode and time of change: the same means that nothing was made again."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def splits_of(folder: Path) -> dict[str, str]:
    """The split of each file of a data folder, by its path in the source."""
    parts = [path.relative_to(folder).parts for path in folder.glob("*/*/**/*") if path.is_file()]
    return {"/".join(rest): split for split, *rest in parts}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare("digits", folder)
    return folder


@pytest.fixture
def classes(tmp_path, save_photo) -> Path:
    """A folder without splits: two classes of thirty photos."""
    for number in range(60):
        save_photo(tmp_path / f"photos/{('cat', 'dog')[number % 2]}/{number}.png", number)
    return tmp_path / "photos"


def test_digits_are_the_real_ones(digits):
    real = load_digits()
    files = list(digits.glob("*/*/*.png"))
    assert len(files) == 1797
    for file in files:
        place = int(file.stem.removeprefix("digit_"))
        assert file.parent.name == str(real.target[place])
        with Image.open(file) as image:
            assert (image.size, image.mode) == ((8, 8), "L")
            values = np.round(np.asarray(image, np.float64) * 16 / 255)
        np.testing.assert_array_equal(values, real.images[place])


def test_digits_are_split_by_class(digits):
    counts = {split: len(list((digits / split).glob("*/*"))) for split in SPLITS}
    assert counts == {"train": 1258, "valid": 270, "test": 269}
    for split, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        for target in range(10):
            whole = len(list(digits.glob(f"*/{target}/*")))
            assert abs(len(list((digits / split / str(target)).iterdir())) - share * whole) <= 1


def test_digits_are_the_same_everywhere(digits, tmp_path):
    prepare("digits", tmp_path / "again")
    assert splits_of(tmp_path / "again") == splits_of(digits)
    # The split is part of what published figures mean: it must never change.
    places = sorted(int(path.stem.removeprefix("digit_")) for path in digits.glob("test/*/*"))
    assert hashlib.sha256(json.dumps(places).encode()).hexdigest() == TEST_PLACES_SHA256


def test_a_second_run_makes_nothing(digits):
    before = state(digits)
    assert prepare("digits", digits) == {"train": 1258, "valid": 270, "test": 269}
    assert state(digits) == before


def test_a_data_folder_that_lost_a_file_is_made_again(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "data")
    next((tmp_path / "data").glob("train/3/*")).unlink()
    prepare("digits", tmp_path / "data")
    assert splits_of(tmp_path / "data") == splits_of(digits)


def test_another_source_replaces_the_data(classes, tmp_path):
    prepare("digits", tmp_path / "data")
    prepare(str(classes), tmp_path / "data")
    assert {path.name for path in (tmp_path / "data/train").iterdir()} == {"cat", "dog"}


def test_a_folder_with_splits_is_linked_as_it_is(digits, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(digits, source)
    (source / "source.json").unlink()
    (source / "train/3/notes.txt").write_text("no photo")
    (source / "train/3/.DS_Store").write_text("no photo")
    (source / "train/3/gone.png").symlink_to("nowhere")
    prepare(str(source), tmp_path / "data")
    assert splits_of(tmp_path / "data") == splits_of(digits) | {"3/notes.txt": "train"}
    for path in source.glob("*/*/digit*"):
        assert path.samefile(tmp_path / "data" / path.relative_to(source))
    load(tmp_path / "data", tmp_path / "cache", 8, "bilinear", report=tmp_path / "report.json")
    skipped = json.loads((tmp_path / "report.json").read_text())["skipped"]
    assert {entry["file"] for entry in skipped} == {"train/3/notes.txt", "train/3/gone.png"}


def test_files_are_copied_where_links_cannot_be(classes, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    prepare(str(classes), tmp_path / "data")
    for file in splits_of(tmp_path / "data"):
        (copy,) = (tmp_path / "data").glob(f"*/{file}")
        assert copy.read_bytes() == (classes / file).read_bytes()
        assert not copy.samefile(classes / file)


def test_a_folder_without_splits_is_split_by_content(classes, tmp_path):
    (classes / "README.md").write_text("about these photos")
    shutil.copy(classes / "cat/0.png", classes / "cat/again.png")
    prepare(str(classes), tmp_path / "data")
    splits = splits_of(tmp_path / "data")
    assert len(splits) == 61
    assert set(splits.values()) == set(SPLITS)
    assert splits["cat/0.png"] == splits["cat/again.png"]
    for file, split in splits.items():
        digest = hashlib.sha256((classes / file).read_bytes()).hexdigest()
        assert split == split_of(digest)


def test_a_changed_source_is_noticed_and_an_unchanged_one_is_not_opened(classes, tmp_path, opened):
    prepare(str(classes), tmp_path / "data")
    before = state(tmp_path / "data")
    opened.clear()
    prepare(str(classes), tmp_path / "data")
    assert state(tmp_path / "data") == before
    assert [path for path in opened.below(classes) if path.is_file()] == []
    (classes / "cat/0.png").unlink()
    prepare(str(classes), tmp_path / "data")
    assert "cat/0.png" not in splits_of(tmp_path / "data")


def test_a_photo_that_took_the_place_of_another_is_noticed(classes, tmp_path):
    """Of the same size and time, as archives leave them."""
    prepare(str(classes), tmp_path / "data")
    photo = next(path for path in sorted(classes.rglob("*")) if path.is_file())
    former, other = photo.stat(), tmp_path / "other"
    other.write_bytes(bytes(reversed(photo.read_bytes())))
    os.utime(other, ns=(former.st_atime_ns, former.st_mtime_ns))
    content = other.read_bytes()
    other.replace(photo)
    prepare(str(classes), tmp_path / "data")
    assert content in [p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()]


def test_a_photo_that_was_written_over_is_noticed_on_another_disk(classes, tmp_path, monkeypatch):
    """Where photos are copied; of the same size, time and inode."""
    output = Path(tempfile.mkdtemp(dir="/dev/shm")) if Path("/dev/shm").is_dir() else tmp_path
    if output.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has one disk only")
    try:
        prepare(str(classes), output / "data")
        photo = next(path for path in sorted(classes.rglob("*")) if path.is_file())
        former, content = photo.stat(), bytes(reversed(photo.read_bytes()))
        with photo.open("r+b") as file:
            file.write(content)
        os.utime(photo, ns=(former.st_atime_ns, former.st_mtime_ns))
        before = state(output / "data")
        prepare(str(classes), output / "data")
        assert content in [p.read_bytes() for p in (output / "data").rglob("*") if p.is_file()]
        assert state(output / "data") != before
        before = state(output / "data")
        prepare(str(classes), output / "data")
        assert state(output / "data") == before
    finally:
        shutil.rmtree(output)


def test_a_file_that_cannot_be_read_to_its_end_is_left_to_the_report(classes, tmp_path):
    if not Path("/proc/self/mem").exists():
        pytest.skip("this system has no file whose reading fails")
    folder = next(path for path in sorted(classes.rglob("*")) if path.is_dir())
    (folder / "bad.jpg").symlink_to("/proc/self/mem")
    prepare(str(classes), tmp_path / "data")
    assert len(list((tmp_path / "data").rglob("bad.jpg"))) == 1


def test_of_a_file_larger_than_photos_are_no_more_is_read(classes, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100_000)
    folder = next(path for path in sorted(classes.rglob("*")) if path.is_dir())
    films = (bytes([n]) * 200_000 for n in range(256))
    film = next(film for film in films if split_of(hashlib.sha256(film).hexdigest()) != "train")
    (folder / "film.jpg").write_bytes(film)
    prepare(str(classes), tmp_path / "data")
    assert (tmp_path / f"data/train/{folder.name}/film.jpg").exists()


def test_data_of_another_folder_of_the_same_name_are_not_replaced_unsaid(classes, tmp_path, caplog):
    prepare(str(classes), tmp_path / "data")
    assert not caplog.messages
    prepare("digits", tmp_path / "data")
    (said,) = caplog.messages
    assert f"was made from {classes}" in said
    assert "is made anew from digits" in said


def test_a_changed_target_of_a_link_is_noticed(classes, tmp_path, save_photo):
    target = save_photo(tmp_path / "elsewhere/new.png", 100)
    (classes / "cat/link.png").symlink_to(target)
    prepare(str(classes), tmp_path / "data")
    target.unlink()
    save_photo(target, 101)
    prepare(str(classes), tmp_path / "data")
    (linked,) = (tmp_path / "data").glob("*/cat/link.png")
    assert linked.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("digest", "split"),
    [
        ("0" * 64, "train"),
        ("b33333333333" + "0" * 52, "train"),
        ("b33333333334" + "0" * 52, "valid"),
        ("d99999999999" + "0" * 52, "valid"),
        ("d9999999999a" + "0" * 52, "test"),
        ("f" * 64, "test"),
    ],
)
def test_the_bounds_of_the_split(digest, split):
    assert split_of(digest) == split


def test_the_split_keeps_its_shares():
    splits = [split_of(hashlib.sha256(str(n).encode()).hexdigest()) for n in range(20_000)]
    for split, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        assert abs(splits.count(split) / len(splits) - share) < 0.01


@settings(max_examples=25)
@given(
    bodies=st.lists(st.binary(max_size=8), max_size=12, unique=True),
    kept=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_no_file_moves_when_others_come_or_go(tmp_path_factory, bodies, kept):
    folder = tmp_path_factory.mktemp("stable")
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):  # enough for each split to have one
            (folder / f"photos/{name}/base{number}").write_bytes(f"{name} {number}".encode())
    for number, body in enumerate(bodies):
        (folder / f"photos/cat/{number}").write_bytes(body)
    prepare(str(folder / "photos"), folder / "data")
    before = splits_of(folder / "data")
    for number, keep in zip(range(len(bodies)), kept, strict=False):
        if not keep:
            (folder / f"photos/cat/{number}").unlink()
    prepare(str(folder / "photos"), folder / "data")
    after = splits_of(folder / "data")
    assert after.items() <= before.items()
    assert len(after) == 40 + sum(kept[: len(bodies)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "train").mkdir(), r"train is empty: remove it, or fill it"),
        (lambda folder: (folder / "empty").mkdir(), r"for empty: none falls to train; .*yourself"),
        (lambda folder: shutil.rmtree(folder / "cat"), "nor two or more class folders"),
        (lambda folder: shutil.rmtree(folder), "is neither digits nor dogs nor a folder"),
        (
            lambda folder: [file.unlink() for file in folder.glob("*/*") if in_test(file)],
            "no photo for test",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(classes, tmp_path, spoil, message):
    spoil(classes)
    with pytest.raises(UsageError, match=message):
        prepare(str(classes), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def in_test(file: Path) -> bool:
    return split_of(hashlib.sha256(file.read_bytes()).hexdigest()) == "test"


@pytest.mark.parametrize("output", ["photos", "photos/cat/out", "."])
def test_source_and_output_must_lie_apart(classes, tmp_path, output):
    before = state(tmp_path)
    with pytest.raises(UsageError, match="lie in each other"):
        prepare(str(classes), tmp_path / output)
    assert state(tmp_path) == before


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        prepare("digits", tmp_path / "precious")
    assert (tmp_path / "precious/thesis.txt").read_text() == "years of work"


def test_a_failed_run_leaves_the_former_data_whole(classes, tmp_path, monkeypatch):
    prepare("digits", tmp_path / "data")
    before = state(tmp_path / "data")
    places = iter(range(10))

    def fail_at_the_tenth(source: Path, target: Path) -> None:
        if next(places) == 9:
            raise OSError(28, "No space left on device", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(sources, "_place", fail_at_the_tenth)
    with pytest.raises(KennelError, match=r"cannot make .*data: No space left on device"):
        prepare(str(classes), tmp_path / "data")
    assert state(tmp_path / "data") == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "photos"}


@pytest.fixture
def dogs_url(tmp_path, save_photo, monkeypatch) -> Iterator[str]:
    """A small dogImages.zip, laid out as the real one, behind a real HTTP server."""
    monkeypatch.setattr(download, "PAUSE_S", 0)
    site = tmp_path / "site"
    site.mkdir()
    with zipfile.ZipFile(site / "dogImages.zip", "w") as archive:
        for number, split in enumerate(SPLITS):
            for name in ("001.Affenpinscher", "002.Afghan_hound"):
                photo = save_photo(tmp_path / f"made/{split}{name}.jpg", number)
                archive.write(photo, f"dogImages/{split}/{name}/{photo.name}")
        archive.writestr("__MACOSX/dogImages/._train", b"junk")
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/dogImages.zip"
        http.shutdown()
        thread.join()


def test_dogs_are_fetched_and_unpacked_once(dogs_url, tmp_path):
    counts = prepare("dogs", tmp_path / "out/data", dogs_url)
    assert counts == {"train": 2, "valid": 2, "test": 2}
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/data"]
    data = load(tmp_path / "out/data", tmp_path / "cache", 32, "bilinear")
    assert data.labels == ("Affenpinscher", "Afghan_hound")
    # Nothing is asked for a second time, so that it works offline.
    shutil.rmtree(tmp_path / "site")
    assert prepare("dogs", tmp_path / "out/data", dogs_url) == counts


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body[:-100],
        lambda body: body.replace(b"dogImages/valid", b"dogImages/other"),
        lambda body: body[:500] + bytes(100) + body[600:],
        lambda body: body.replace(b"__MACOSX/dogImages", b"../../../dogImages"),
    ],
    ids=["cut", "another layout", "damaged", "escaping"],
)
def test_a_bad_archive_is_refused_and_fetched_again(dogs_url, tmp_path, spoil):
    archive = tmp_path / "site/dogImages.zip"
    good = archive.read_bytes()
    archive.write_bytes(spoil(good))
    output = tmp_path / "out/data"
    with pytest.raises(KennelError):
        prepare("dogs", output, dogs_url)
    assert list(output.parent.iterdir()) == []
    archive.write_bytes(good)
    prepare("dogs", output, dogs_url)
    assert len(splits_of(output)) == 6


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "trainer.sources", *map(str, arguments)],
        cwd=Path(sources.__file__).parents[1],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_command_line(classes, tmp_path):
    for _ in range(2):
        done = run(classes, "--output", tmp_path / "data")
        assert done.returncode == 0, done.stderr
        counts = ", ".join(f"{n} {s}" for s, n in counted(tmp_path / "data").items())
        assert done.stdout == f"{tmp_path / 'data'}: files: {counts}\n"


def counted(data: Path) -> dict[str, int]:
    return {split: list(splits_of(data).values()).count(split) for split in SPLITS}


def test_offline_the_command_line_says_what_works_in_one_line(tmp_path):
    url = "http://127.0.0.1:9/dogImages.zip"
    done = run("dogs", "--output", tmp_path / "data", "--archive-url", url)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot download {url}: ")
    assert done.stderr.endswith("; `digits` and any folder of photos work offline\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_data_set_is_wrong_usage(tmp_path):
    done = run("birds", "--output", tmp_path / "data")
    assert done.returncode == 2
    assert done.stderr == "error: birds is neither digits nor dogs nor a folder\n"
    none = run("", "--output", tmp_path / "data")
    assert none.returncode == 2
    assert none.stderr == "error: no data set is named; give digits, dogs or a folder of photos\n"
