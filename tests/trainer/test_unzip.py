import stat
import zipfile
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import disk, unzip
from trainer.errors import KennelError
from trainer.unzip import ZipError, is_safe_path

PHOTO = bytes(range(256)) * 20
FILES = {
    "dogImages/train/001.Boxer/a.jpg": PHOTO,
    "dogImages/test/001.Boxer/b.jpg": PHOTO[1:],
    "dogImages/valid/001.Boxer/c.jpg": b"",
}

# Names that meet the path rules more often than plain text would.
NAMES = st.lists(
    st.sampled_from(["a", "..", ".", "/", "\\", "C:", "nul", "con.jpg", "\0", "\n", " ", "é", "~"]),
    max_size=6,
).map("".join) | st.text(max_size=20)


def write_zip(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body, **options)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refuse(archive: Path, reason: str) -> None:
    """The archive is refused for `reason`, and nothing has been written."""
    target = archive.with_name("out")
    with pytest.raises(ZipError, match=reason):
        unzip.unzip(archive, target, "dogImages")
    assert not target.exists()


def test_files_of_the_folder_are_unpacked_without_its_name(tmp_path):
    others = {"README": b"1", "__MACOSX/dogImages/train/._a.jpg": b"2", "dogImages/train/": b""}
    archive = write_zip(tmp_path / "a.zip", FILES | others)
    unzip.unzip(archive, tmp_path / "out", "dogImages")
    expected = {name.removeprefix("dogImages/"): body for name, body in FILES.items()}
    assert files_below(tmp_path / "out") == expected


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//host/share",
        "../escaped",
        "dogImages/../../escaped",
        "dogImages/train/..",
        "dogImages\\..\\..\\escaped",
        "C:/escaped",
        "C:escaped",
        "dogImages/a.jpg:stream",
        "dogImages/NUL",
        "dogImages/train/com1.jpg",
        "dogImages/a\0.jpg",
        "dogImages/a\n.jpg",
        "",
        ".",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path, name):
    archive = tmp_path / "a.zip"
    member = zipfile.ZipInfo("placeholder")
    member.filename = name
    with zipfile.ZipFile(archive, "w") as contents:
        contents.writestr("dogImages/good.jpg", PHOTO)
        contents.writestr(member, b"bad")
    refuse(archive, "a path that may lead elsewhere")


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    member = zipfile.ZipInfo("dogImages/train/link")
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as contents:
        contents.writestr(member, "/etc/passwd")
    refuse(tmp_path / "a.zip", "a link or a device")


def test_a_path_that_comes_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as contents:
        contents.writestr("dogImages/a.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            contents.writestr("dogImages/a.jpg", b"2")
    refuse(tmp_path / "a.zip", "comes twice")


def test_bombs_are_refused(tmp_path, monkeypatch):
    refuse(
        write_zip(tmp_path / "a.zip", {"dogImages/a.jpg": bytes(10**6)}),
        "times larger once unpacked",
    )
    archive = write_zip(tmp_path / "b.zip", FILES)
    monkeypatch.setattr(unzip, "MAX_ENTRIES", 2)
    refuse(archive, "3 entries, more than 2")
    monkeypatch.undo()
    monkeypatch.setattr(unzip, "MAX_BYTES", 10_000)
    refuse(archive, "unpacks to 10,239 bytes, more than 10,000")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_methods_are_refused(tmp_path, method):
    archive = write_zip(tmp_path / "a.zip", FILES, compress_type=method)
    refuse(archive, "encrypted or packed by an unusual method")


def test_encrypted_files_are_refused(tmp_path):
    body = bytearray(write_zip(tmp_path / "a.zip", {"dogImages/a.jpg": PHOTO}).read_bytes())
    directory = body.rindex(b"PK\x01\x02")
    body[directory + 8] |= 1
    (tmp_path / "a.zip").write_bytes(body)
    refuse(tmp_path / "a.zip", "encrypted")


def test_a_size_that_lies_gives_no_more_bytes_than_it_says(tmp_path):
    body = bytearray(write_zip(tmp_path / "a.zip", {"dogImages/a.jpg": PHOTO}).read_bytes())
    directory = body.rindex(b"PK\x01\x02")
    body[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(body)
    with pytest.raises(ZipError, match="no sound zip"):
        unzip.unzip(tmp_path / "a.zip", tmp_path / "out", "dogImages")
    assert all(len(body) <= 100 for body in files_below(tmp_path / "out").values())


@pytest.mark.parametrize("cut", [0, 10, -10, -100])
def test_a_cut_archive_is_refused(tmp_path, cut):
    archive = write_zip(tmp_path / "a.zip", FILES)
    archive.write_bytes(archive.read_bytes()[:cut])
    refuse(archive, "no sound zip")


def test_a_flipped_bit_is_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as contents:
        contents.writestr("dogImages/a.jpg", PHOTO)
    body = bytearray((tmp_path / "a.zip").read_bytes())
    body[1000] ^= 1
    (tmp_path / "a.zip").write_bytes(body)
    with pytest.raises(ZipError, match="Bad CRC"):
        unzip.unzip(tmp_path / "a.zip", tmp_path / "out", "dogImages")


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(KennelError, match="has 100 bytes free and 10,239 are needed"):
        unzip.unzip(archive, tmp_path / "out", "dogImages")
    assert files_below(tmp_path / "out") == {}


@given(NAMES)
def test_a_safe_path_stays_below_its_folder_on_any_system(name):
    if not is_safe_path(name):
        return
    parts = PureWindowsPath("C:\\data", name).parts
    assert parts[:2] == ("C:\\", "data")
    assert not {"..", "."} & set(parts)
    folder = Path("/data/folder")
    assert Path(folder, name).resolve().is_relative_to(folder)
    assert Path(folder, name) != folder


@given(st.lists(st.text("abcdéü0_- ", min_size=1), min_size=1).map("/".join))
def test_ordinary_paths_are_safe(name):
    assert is_safe_path(name)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_mutated_archive_is_refused_or_harmless(tmp_path_factory, edits):
    tmp_path = tmp_path_factory.mktemp("mutated")
    body = bytearray(write_zip(tmp_path / "a.zip", FILES).read_bytes())
    for place, value in edits:
        body[place % len(body)] = value
    (tmp_path / "a.zip").write_bytes(body)
    with suppress(KennelError):
        unzip.unzip(tmp_path / "a.zip", tmp_path / "out", "dogImages")
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", "out"}


@given(st.binary(max_size=200) | st.builds(lambda tail: b"PK\x03\x04" + tail, st.binary()))
def test_bytes_that_are_no_archive_are_refused(tmp_path_factory, body):
    archive = tmp_path_factory.getbasetemp() / "noise.zip"
    archive.write_bytes(body)
    with pytest.raises(KennelError):
        unzip.unzip(archive, tmp_path_factory.getbasetemp() / "noise", "dogImages")
