import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.shard_folders import make_shards
from trainer.config import TrainConfig
from trainer.dataset import load
from trainer.errors import KennelError
from trainer.layout import SPLITS
from trainer.ranks import alone
from trainer.shards import (
    MANIFEST,
    Manifest,
    ShardError,
    dataset_name,
    describe,
    pack,
    partition,
    read_manifest,
    unpacked,
)
from trainer.train import Folders, train

LIMIT = 1000
SIZES = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 700), max_size=40)


@pytest.fixture(scope="module")
def shards(colours, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "colours"
    manifest = make_shards(colours, folder)
    assert sum(shard.split == "train" for shard in manifest.shards) > 2
    return folder


@pytest.fixture
def copy(shards, tmp_path) -> Path:
    """A folder of shards to do damage in."""
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def manifest_in(folder: Path) -> Manifest:
    return read_manifest((folder / MANIFEST).read_bytes(), folder)


def read(root: Path, cache: Path, *splits: str):
    return load(root, cache, 32, "bilinear", splits=splits or SPLITS)


@given(SIZES)
def test_every_file_is_in_one_shard_that_is_not_too_large(sizes):
    groups = partition(sizes, LIMIT)
    assert sorted(path for group in groups for path in group) == sorted(sizes)
    assert all(sum(map(sizes.__getitem__, g)) <= LIMIT or len(g) == 1 for g in groups)
    assert all(list(group) == sorted(group) for group in groups)


@given(SIZES.filter(bool), st.integers(0, 700), st.data())
def test_a_change_of_one_file_leaves_all_other_shards_alone(sizes, size, data):
    path = data.draw(st.sampled_from(sorted(sizes)))
    smaller, larger = sorted([sizes[path], size])
    before, after = (set(partition(sizes | {path: s}, LIMIT)) for s in (smaller, larger))
    # What became too large is split; what was split for it is one again.
    assert len(before - after) <= 1
    gone = set(partition({p: s for p, s in sizes.items() if p != path}, LIMIT))
    assert len(gone - before) <= 1


def test_shards_of_many_files_are_about_equal():
    sizes = {f"train/{number % 133}/{number}.jpg": 132_000 for number in range(6680)}
    limit = 128 * 1024**2
    totals = [sum(map(sizes.__getitem__, group)) for group in partition(sizes, limit)]
    assert len(totals) == 8
    assert min(totals) > limit / 2


def packed(root: Path, *files: str) -> bytes:
    output = io.BytesIO()
    group = describe(root, "train", files)
    pack(root, group, output)
    assert group.sha256 == hashlib.sha256(output.getvalue()).hexdigest()
    assert group.bytes == len(output.getvalue())
    return output.getvalue()


def test_a_shard_is_a_plain_tar_file_that_time_and_owner_do_not_change(tmp_path):
    names = [
        "train/a/1.jpg",
        f"train/Ä b/{'n' * 150}.jpg",
        "train/a/empty",
        "train/a/dog\udce9.jpg",
    ]
    for number, name in enumerate(names):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"" if name.endswith("empty") else bytes([number]) * (500 + number * 13))
    tar = packed(tmp_path, *names)
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        contents = {m.name: found.extractfile(m).read() for m in found.getmembers()}
    assert contents == {name: (tmp_path / name).read_bytes() for name in names}
    os.utime(tmp_path / names[0], (1, 1))
    (tmp_path / names[0]).chmod(0o600)
    assert packed(tmp_path, *names) == tar


def test_a_file_that_changes_while_it_is_packed_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"before")
    group = describe(tmp_path, "train", ["a.jpg"])
    (tmp_path / "a.jpg").write_bytes(b"after")
    with pytest.raises(KennelError, match=r"a\.jpg changes while it is read"):
        pack(tmp_path, group, io.BytesIO())


def test_shards_are_the_data_they_were_made_from(colours, shards, tmp_path):
    original, ours = read(colours, tmp_path / "cache"), read(shards, tmp_path / "cache2")
    assert ours.fingerprint() == original.fingerprint() == manifest_in(shards).fingerprint
    assert (ours.classes, ours.labels) == (original.classes, original.labels)
    for name in SPLITS:
        a, b = original.splits[name], ours.splits[name]
        assert (a.paths, a.digests) == (b.paths, b.digests)
        np.testing.assert_array_equal(a.targets, b.targets)
        assert all(np.array_equal(a.images[i], b.images[i]) for i in range(len(a.paths)))


def test_training_on_shards_gives_the_same_model(colours, shards, tmp_path):
    config = TrainConfig(backbone="efficientnet_lite0", image_size=32, batch_size=10, epochs=1)
    models = []
    for data in (colours, shards):
        places = [tmp_path / data.name / name for name in ("m", "output", "checkpoints", "cache")]
        train(config, Folders(data, *places, features=None), alone())
        models.append({file.name: file.read_bytes() for file in places[0].iterdir()})
    assert "weights.safetensors" in models[0]
    assert models[0] == models[1]


def test_only_the_splits_asked_for_are_opened(shards, tmp_path, opened):
    opened.clear()
    data = read(shards, tmp_path, "train", "valid")
    assert list(data.splits) == ["train", "valid"]
    files = {path.name.split("-")[0] for path in opened.below(shards)}
    assert files == {MANIFEST, "train", "valid"}


def test_classes_do_not_depend_on_the_splits_asked_for(shards, tmp_path, opened):
    opened.clear()
    data = read(shards, tmp_path, "test")
    assert data.classes == ("1.red", "2.green", "3.blue")
    assert data.splits["test"].targets.tolist() == [0] * 4 + [1] * 4 + [2] * 3
    assert not [path for path in opened.below(shards) if path.name.startswith("train")]


def test_shards_are_unpacked_once(shards, tmp_path, opened):
    read(shards, tmp_path)
    opened.clear()
    read(shards, tmp_path)
    assert {path.name for path in opened.below(shards)} == {MANIFEST}


def test_one_process_unpacks_and_the_others_wait(shards, tmp_path):
    program = (
        "import sys, pathlib, trainer.shards as shards\n"
        "original = shards.unpack\n"
        "def told(*given): print('unpacks', flush=True); original(*given)\n"
        "shards.unpack = told\n"
        "input()\n"
        "folder, cache = map(pathlib.Path, sys.argv[1:])\n"
        "print(shards.unpacked(folder, cache, ('train',)))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(shards), str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert lines.count("unpacks") == 1
    (place,) = {line for line in lines if line != "unpacks"}
    assert len(list(Path(place).glob("train/*/*.png"))) == 37


def test_another_data_set_in_the_same_place_is_not_taken_for_the_former(copy, tmp_path, save_photo):
    before = read(copy, tmp_path / "cache")
    data = tmp_path / "other"
    for split in SPLITS:
        save_photo(data / split / "1.red/0.png", seed=5)
        save_photo(data / split / "2.green/0.png", seed=6)
    shutil.rmtree(copy)
    make_shards(data, copy)
    after = read(copy, tmp_path / "cache")
    assert len(after.splits["train"].paths) == 2
    assert before.fingerprint() != after.fingerprint()


def only_shard(folder: Path, split: str = "test") -> Path:
    return folder / next(s.file for s in manifest_in(folder).shards if s.split == split)


@pytest.mark.parametrize("fault", ["missing", "cut", "flipped", "longer", "garbage"])
def test_a_missing_or_damaged_shard_is_named_and_leaves_nothing(copy, tmp_path, fault):
    shard = only_shard(copy)
    body = shard.read_bytes()
    damaged = {
        "cut": body[: len(body) // 2],
        "flipped": body[:700] + bytes([body[700] ^ 1]) + body[701:],
        "longer": body + b"more",
        "garbage": b"<html>" * 1000,
    }
    shard.unlink()
    if fault != "missing":
        shard.write_bytes(damaged[fault])
    with pytest.raises(ShardError) as caught:
        read(copy, tmp_path / "cache")
    assert str(shard) in str(caught.value)
    assert "again" in str(caught.value)
    assert caught.value.path == shard
    assert list((tmp_path / "cache").rglob("*.png")) == []
    shard.write_bytes(body)
    assert len(read(copy, tmp_path / "cache").splits["test"].paths) == 11


def evil(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 0 if link else 4
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        tar.addfile(info, io.BytesIO(b"evil"))
    return output.getvalue()


@pytest.mark.parametrize(
    "tar",
    [
        evil("test/../../../escaped"),
        evil("/tmp/escaped"),
        evil("train/1.red/0.png"),
        evil("test/1.red/link", tarfile.SYMTYPE, "/etc/passwd"),
        evil("test/1.red/link", tarfile.LNKTYPE, "test/1.red/0.png"),
        evil("test/1.red/pipe", tarfile.FIFOTYPE),
    ],
    ids=["upwards", "absolute", "other split", "symlink", "hard link", "fifo"],
)
def test_a_tar_file_that_would_write_elsewhere_is_refused(copy, tmp_path, tar):
    shard = only_shard(copy)
    shard.write_bytes(tar)
    manifest = manifest_in(copy)
    sound = hashlib.sha256(tar).hexdigest()
    changed = tuple(
        replace(s, sha256=sound) if s.file == shard.name else s for s in manifest.shards
    )
    (copy / MANIFEST).write_text(replace(manifest, shards=changed).to_text())
    with pytest.raises(ShardError, match="is damaged"):
        unpacked(copy, tmp_path / "cache", ("test",))
    assert not list(tmp_path.rglob("*escaped*"))
    assert not list((tmp_path / "cache").rglob("*link"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "has format 2, and this version of Kennel reads format 1"),
        ({"shards": [{"file": "x"}]}, "is damaged"),
        ({"shards": 3}, "is damaged"),
        ({"classes": None}, "is damaged"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(copy, tmp_path, change, told):
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(content | change))
    with pytest.raises(ShardError, match=told):
        unpacked(copy, tmp_path / "cache", SPLITS)


@pytest.mark.parametrize("leads_away", ["contents", "classes", "shards"])
def test_no_name_in_a_manifest_leads_elsewhere(copy, tmp_path, leads_away):
    content = json.loads((copy / MANIFEST).read_text())
    content |= {
        "contents": {"contents": "../../escaped"},
        "classes": {"classes": ["../../../escaped"]},
        "shards": {"shards": [shard | {"file": "../x.tar"} for shard in content["shards"]]},
    }[leads_away]
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ShardError, match="another folder"):
        unpacked(copy, tmp_path / "cache", SPLITS)
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_data_folder_with_a_manifest_of_its_own_stays_one(colours, tmp_path):
    data = Path(shutil.copytree(colours, tmp_path / "data"))
    (data / MANIFEST).write_text('{"made by": "something else"}')
    assert len(read(data, tmp_path / "cache").splits["train"].paths) == 37


def test_a_cache_that_cannot_be_written_is_an_error(shards, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(KennelError, match="choose another cache folder"):
        unpacked(shards, tmp_path / "file", SPLITS)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"source": {"format": 3, "folder": "/home/me/my photos"}, "files": {}}, "my photos"),
        ({"source": {"format": 1, "dataset": "dogs", "url": "https://x/images"}}, "dogs"),
        ({"source": "here"}, ""),
        (None, ""),
    ],
)
def test_shards_are_called_as_what_they_are_from_and_never_as_the_channel(source, name, tmp_path):
    channel = tmp_path / "training"
    channel.mkdir()
    manifest = Manifest(1, "0" * 64, "f" * 64, ("cat", "dog"), source, ())
    (channel / MANIFEST).write_text(manifest.to_text())
    assert dataset_name(channel) == name
    (channel / "train").mkdir()  # then it is a folder of photos
    assert dataset_name(channel) == "training"
