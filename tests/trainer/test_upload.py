"""The data set in a bucket of a real localaws, over HTTP."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest

from tests.localaws.conftest import LocalAws
from trainer import shards, upload
from trainer import target as targets
from trainer.dataset import load
from trainer.errors import KennelError, UsageError, run_command
from trainer.layout import SPLITS
from trainer.target import Target
from trainer.upload import address, download, require_manifest

BUCKET = "kennel-local-123456789012-us-east-1"
SHARD_BYTES = 20_000
CLASSES = ("001.Boxer", "002.Poodle")


class Bucket:
    """The bucket, and what was asked of AWS."""

    def __init__(self, aws: LocalAws, calls: Path) -> None:
        self._calls, self._seen = calls, 0
        self.s3 = aws.client("s3")

    def calls(self) -> list[str]:
        """The S3 operations since the last time."""
        lines = self._calls.read_text().splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        told = [json.loads(line) for line in new]
        return [call["operation"] for call in told if call["service"] == "s3"]

    def objects(self, name: str) -> dict[str, str]:
        """The files of a data set, and the version of each."""
        prefix = f"data/{name}/"
        found = self.s3.list_object_versions(Bucket=BUCKET, Prefix=prefix).get("Versions", [])
        return {v["Key"].removeprefix(prefix): v["VersionId"] for v in found if v["IsLatest"]}

    def body(self, name: str, file: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=f"data/{name}/{file}")["Body"].read()
        return body

    def put(self, name: str, file: str, body: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=f"data/{name}/{file}", Body=body)

    def delete(self, name: str, file: str) -> None:
        self.s3.delete_object(Bucket=BUCKET, Key=f"data/{name}/{file}")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("localaws")
    aws = LocalAws(folder, "--records-only", "--calls", str(folder / "calls"))
    aws.client("s3").create_bucket(Bucket=BUCKET)
    aws.client("s3").put_bucket_versioning(
        Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"}
    )
    aws.client("ssm").put_parameter(Name="/kennel/local/bucket", Value=BUCKET, Type="String")
    with mock.patch.dict(os.environ, aws.environment):
        yield Bucket(aws, folder / "calls")
    aws.stop()


@pytest.fixture(scope="module")
def target(bucket: Bucket) -> Target:
    return targets.load("local")


@pytest.fixture
def data(tmp_path, save_photo) -> Path:
    """A data folder of two classes in several shards, with a file that is no photo."""
    seed = 0
    for split, count in {"train": 8, "valid": 2, "test": 2}.items():
        for name in CLASSES:
            for number in range(count):
                save_photo(tmp_path / f"data/{split}/{name}/{number}.png", seed := seed + 1)
    (tmp_path / "data/train/001.Boxer/notes.txt").write_text("no photo")
    (tmp_path / "data/source.json").write_text('{"source": "here"}')
    return tmp_path / "data"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A data set of the test's own."""
    return request.node.name.split("[")[0][-60:].strip("_")


def up(target: Target, data: Path, name: str) -> upload.Uploaded:
    return upload.upload(target, data, name, SHARD_BYTES)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for split in SPLITS for path in (folder / split).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def came_down(target: Target, name: str, folder: Path) -> dict[str, bytes]:
    assert download(target, name, folder).changed
    return contents(folder)


def test_every_name_of_a_photo_goes_up_and_comes_down(target, data, name, tmp_path, save_photo):
    odd = (b"caf\xe9", b"\xff\xfe", b"new\nline", "🐕 ü".encode(), b"dot. ", b"\xe9" * 251)
    for seed, raw in enumerate(odd):
        photo = save_photo(tmp_path / "photo.png", 100 + seed)
        photo.rename(data / "train/002.Poodle" / os.fsdecode(raw + b".png"))
    (data / "train/002.Poodle" / os.fsdecode(b"n\xf6.txt")).write_text("no photo")
    assert up(target, data, name).images["train"] == 16 + len(odd)
    assert came_down(target, name, tmp_path / "down") == contents(data)
    assert not up(target, data, name).changed


def test_what_goes_up_comes_down(bucket, target, data, name, tmp_path):
    done = up(target, data, name)
    assert done.uri == address(target, name) == f"s3://{BUCKET}/data/{name}/"
    assert done.images == {"train": 16, "valid": 4, "test": 4}
    assert done.uploaded_shards == done.shards == len(bucket.objects(name)) - 1
    assert 3 < done.shards < 25
    down = download(target, name, tmp_path / "down")
    assert contents(tmp_path / "down") == contents(data)
    assert json.loads((tmp_path / "down/source.json").read_text()) == {"source": "here"}
    fingerprint = load(data, tmp_path / "cache", 32, "bilinear").fingerprint()
    assert down.fingerprint == done.fingerprint == fingerprint
    manifest = require_manifest(target, name)
    assert manifest.fingerprint == fingerprint
    assert manifest.classes == CLASSES
    assert [s.skipped for s in manifest.shards if s.skipped] == [("train/001.Boxer/notes.txt",)]


def test_no_photo_is_decoded_when_a_report_is_about_these_very_files(
    target, data, name, save_photo, monkeypatch
):
    decoded = []
    is_photo = upload.is_photo
    monkeypatch.setattr(upload, "is_photo", lambda file: decoded.append(file) or is_photo(file))
    load(data, data.parent / "cache", 32, "bilinear", report=data / "dataset_report.json")
    reported = up(target, data, name)
    assert decoded == []
    (data / "dataset_report.json").unlink()
    assert up(target, data, f"{name}-2").fingerprint == reported.fingerprint
    assert len(decoded) == 25

    load(data, data.parent / "cache", 32, "bilinear", report=data / "dataset_report.json")
    save_photo(data / "train/001.Boxer/3.png", seed=99)
    decoded.clear()
    assert up(target, data, name).fingerprint != reported.fingerprint
    assert data / "train/001.Boxer/3.png" in decoded


def test_a_copy_of_the_bucket_folder_is_the_data_set(bucket, target, data, name, tmp_path):
    up(target, data, name)
    for file in bucket.objects(name):
        (tmp_path / "channel").mkdir(exist_ok=True)
        (tmp_path / "channel" / file).write_bytes(bucket.body(name, file))
    ours, original = (
        load(folder, tmp_path / "cache", 32, "bilinear") for folder in (tmp_path / "channel", data)
    )
    assert ours.fingerprint() == original.fingerprint()
    assert ours.splits["train"].paths == original.splits["train"].paths


def test_every_shard_carries_its_checksum(bucket, target, data, name):
    up(target, data, name)
    for shard in require_manifest(target, name).shards:
        head = bucket.s3.head_object(
            Bucket=BUCKET, Key=f"data/{name}/{shard.file}", ChecksumMode="ENABLED"
        )
        assert base64.b64decode(head["ChecksumSHA256"]).hex() == shard.sha256


def test_an_upload_without_a_change_is_two_calls(bucket, target, data, name):
    up(target, data, name)
    objects = bucket.objects(name)
    os.utime(data / "train/001.Boxer/0.png", (1, 1))
    bucket.calls()
    done = up(target, data, name)
    assert bucket.calls() == ["GetObject", "ListObjectsV2"]
    assert (done.changed, done.uploaded_shards, done.removed_shards) == (False, 0, 0)
    assert bucket.objects(name) == objects


def test_one_changed_photo_changes_one_shard(bucket, target, data, name, save_photo, tmp_path):
    before = up(target, data, name)
    objects = bucket.objects(name)
    save_photo(data / "train/001.Boxer/3.png", seed=99)
    done = up(target, data, name)
    assert (done.changed, done.uploaded_shards, done.removed_shards) == (True, 1, 1)
    assert done.shards == before.shards
    after = bucket.objects(name)
    assert len(objects.items() - after.items()) == 2  # a shard and the manifest
    assert came_down(target, name, tmp_path / "down") == contents(data)


def test_a_renamed_photo_is_another_data_set(target, data, name):
    before = up(target, data, name)
    (data / "train/001.Boxer/3.png").rename(data / "train/001.Boxer/new.png")
    done = up(target, data, name)
    assert done.changed
    assert done.fingerprint == before.fingerprint


def test_a_killed_upload_goes_on(bucket, target, data, name):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from trainer import target, upload\n"
        "upload._THREADS, pack, packed = 1, upload.pack, []\n"
        "def until_killed(*given):\n"
        "    packed.append(pack(*given))\n"
        "    if len(packed) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "upload.pack = until_killed\n"
        "upload.upload(target.load('local'), Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))\n"
    )
    arguments = [str(data), name, str(SHARD_BYTES)]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    there = bucket.objects(name)
    assert len(there) == 2
    assert shards.MANIFEST not in there
    done = up(target, data, name)
    assert done.uploaded_shards == done.shards - 2
    assert there.items() <= bucket.objects(name).items()


def test_readers_see_the_old_data_until_the_new_ones_are_whole(
    bucket, target, data, name, save_photo, tmp_path, monkeypatch
):
    up(target, data, name)
    old = contents(data)
    save_photo(data / "train/001.Boxer/3.png", seed=99)
    with monkeypatch.context() as patch:
        patch.setattr(upload._Store, "switch", broken)
        with pytest.raises(BrokenPipeError):
            up(target, data, name)
    assert came_down(target, name, tmp_path / "old") == old
    # What the broken upload left is used.
    assert up(target, data, name).uploaded_shards == 0
    assert came_down(target, name, tmp_path / "new") == contents(data)
    files = {shard.file for shard in require_manifest(target, name).shards}
    assert set(bucket.objects(name)) == files | {shards.MANIFEST}


def broken(*given: object) -> None:
    raise BrokenPipeError


@pytest.fixture
def rivals(data, tmp_path, save_photo) -> list[Path]:
    """Two data folders that differ from the first one, each in another split."""
    folders = []
    for number, split in enumerate(("train", "valid")):
        folder = tmp_path / f"rival{number}"
        shutil.copytree(data, folder)
        save_photo(folder / split / "001.Boxer/0.png", seed=100 + number)
        folders.append(folder)
    return folders


def test_of_two_uploads_at_a_time_the_later_one_wins(
    bucket, target, data, rivals, name, tmp_path, monkeypatch
):
    up(target, data, name)
    both, switch = threading.Barrier(2), upload._Store.switch

    def switch_together(*given):
        with suppress(threading.BrokenBarrierError):
            both.wait(120)
        both.abort()
        return switch(*given)

    monkeypatch.setattr(upload._Store, "switch", switch_together)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda rival: up(targets.load("local"), rival, name), rivals))
    assert all(one.changed for one in done)
    assert require_manifest(target, name).generation == 3
    assert came_down(target, name, tmp_path / "down") in [contents(rival) for rival in rivals]


def test_an_upload_that_lingers_removes_nothing_that_a_later_one_needs(
    target, data, rivals, name, tmp_path, monkeypatch
):
    up(target, data, name)
    remove, lingering, go = upload._Store.remove, threading.Event(), threading.Event()

    def remove_late(*given):
        lingering.set()
        assert go.wait(120)
        remove(*given)

    monkeypatch.setattr(upload._Store, "remove", remove_late)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(up, targets.load("local"), rivals[0], name)
        assert lingering.wait(120)
        monkeypatch.setattr(upload._Store, "remove", remove)
        # It wants back the shard of `train` that the first one is about to remove.
        up(target, rivals[1], name)
        go.set()
        first.result()
    assert came_down(target, name, tmp_path / "down") == contents(rivals[1])


def test_a_shard_removed_by_hand_is_uploaded_again(bucket, target, data, name, tmp_path):
    up(target, data, name)
    bucket.delete(name, require_manifest(target, name).shards[0].file)
    with pytest.raises(KennelError, match="lacks a shard"):
        download(target, name, tmp_path / "down")
    done = up(target, data, name)
    assert (done.changed, done.uploaded_shards) == (False, 1)
    bucket.calls()
    assert came_down(target, name, tmp_path / "down") == contents(data)


def test_a_download_goes_on_where_it_broke_off(bucket, target, data, name, tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "_THREADS", 1)
    up(target, data, name)
    last = require_manifest(target, name).shards[-1].file
    body = bucket.body(name, last)
    bucket.delete(name, last)
    with pytest.raises(KennelError):
        download(target, name, tmp_path / "down")
    assert not (tmp_path / "down").exists()
    bucket.put(name, last, body)
    bucket.calls()
    assert came_down(target, name, tmp_path / "down") == contents(data)
    assert bucket.calls().count("HeadObject") == 1
    assert [path.name for path in tmp_path.glob(".down*")] == []


def test_a_damaged_shard_is_fetched_again(bucket, target, data, name, tmp_path):
    up(target, data, name)
    file = require_manifest(target, name).shards[0].file
    body = bucket.body(name, file)
    bucket.put(name, file, body[:-1] + b"x")
    with pytest.raises(KennelError, match=f"{file} is damaged"):
        download(target, name, tmp_path / "down")
    assert not (tmp_path / "down").exists()
    bucket.put(name, file, body)
    assert came_down(target, name, tmp_path / "down") == contents(data)


def test_a_download_replaces_only_what_an_earlier_one_left(
    target, data, name, save_photo, tmp_path
):
    up(target, data, name)
    down = tmp_path / "down"
    assert came_down(target, name, down) == contents(data)
    assert not download(target, name, down).changed
    assert not download(target, name, data).changed

    save_photo(data / "test/001.Boxer/0.png", seed=99)
    up(target, data, name)
    assert came_down(target, name, down) == contents(data)

    save_photo(data / "test/001.Boxer/0.png", seed=98)
    up(target, data, name)
    (down / "train/001.Boxer/1.png").unlink()
    before = contents(down)
    with pytest.raises(UsageError, match="was changed since it came from there"):
        download(target, name, down)
    assert contents(down) == before


@pytest.mark.parametrize("content", ["file", "other folder", "other data"])
def test_a_download_refuses_a_folder_of_something_else(
    target, data, name, tmp_path, save_photo, content
):
    up(target, data, name)
    down = tmp_path / "down"
    if content == "file":
        down.write_text("a file")
    elif content == "other folder":
        save_photo(down / "photo.png")
    else:
        for split in SPLITS:
            save_photo(down / split / "cat/0.png")
    with pytest.raises(UsageError, match="holds something else"):
        download(target, name, down)
    assert down.exists()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; gives the exit code."""
    monkeypatch.setattr(sys, "argv", ["upload", *arguments])
    try:
        run_command(upload.main)
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def test_the_commands_print_lines_for_people_and_for_machines(
    bucket, data, name, tmp_path, capsys, monkeypatch
):
    sent = ["upload", "--env", "local", "--data", str(data), "--name", name]
    assert command(monkeypatch, *sent) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"s3://{BUCKET}/data/{name}/: 24 photos in 3 shards; 3 uploaded (0.1 MB")
    assert command(monkeypatch, *sent) == 0
    assert "is up to date: 24 photos in 3 shards" in capsys.readouterr().out
    assert command(monkeypatch, *sent, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] is False
    assert told["images"] == {"train": 16, "valid": 4, "test": 4}
    fetched = ["download", "--env", "local", "--name", name, "--data", str(tmp_path / "down")]
    assert command(monkeypatch, *fetched) == 0
    expected = f"{tmp_path / 'down'}: photos: 16 train, 4 valid, 4 test\n"
    assert capsys.readouterr().out == expected
    assert command(monkeypatch, *fetched, "--json") == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["download", "--env", "local", "--name", "nothing"],
            2,
            "`make upload DATASET=nothing ENV=local`",
        ),
        (["download", "--env", "local", "--name", "../models"], 2, "is no name for a data set"),
        (["download", "--env", "dev", "--name", "any"], 1, "apply the foundation first"),
        (["upload", "--env", "local"], 2, "has no train/, valid/, test/"),
    ],
)
def test_errors_are_one_line_with_the_remedy(
    bucket, tmp_path, capsys, monkeypatch, arguments, code, told
):
    assert command(monkeypatch, *arguments, "--data", str(tmp_path)) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error


def test_a_denied_write_is_one_line(bucket, data, name, capsys, monkeypatch):
    bucket.s3.put_bucket_policy(
        Bucket=BUCKET,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:PutObject",
                    "Resource": f"arn:aws:s3:::{BUCKET}/data/{name}/*",
                },
            }
        ),
    )
    sent = ["upload", "--env", "local", "--data", str(data), "--name", name]
    assert command(monkeypatch, *sent) == 1
    assert capsys.readouterr().err.startswith("error: AWS refuses PutObject: AccessDenied")
    bucket.s3.delete_bucket_policy(Bucket=BUCKET)
