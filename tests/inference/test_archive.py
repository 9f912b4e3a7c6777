import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from inference.archive import ALL_FILES, ArchiveError, Model, open_model, write_archive
from tests.scripts import PYTHON

if TYPE_CHECKING:
    from conftest import Change


def pack(destination: Path, members: list[tuple[tarfile.TarInfo, bytes]], **options: Any) -> Path:
    with tarfile.open(destination, "w:gz", **options) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return destination


def member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


@pytest.fixture
def members(model_folder: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(name, (model_folder / name).read_bytes()) for name in ALL_FILES]


def test_an_archive_and_its_folder_are_the_same_model(archive: Path, model: Model) -> None:
    opened = open_model(archive)
    assert (opened.name, opened.digest) == (model.name, model.digest)
    assert opened.name == f"kennel-tiny-net-{opened.digest[:12]}"
    assert opened.labels == ("Red", "Green", "Blue")
    assert opened.preprocess.crop == 32
    assert opened.onnx.read_bytes() == model.onnx.read_bytes()


def test_an_archive_is_unpacked_where_asked(archive: Path, tmp_path: Path) -> None:
    opened = open_model(archive, tmp_path / "new")
    assert opened.folder.parent == tmp_path / "new"
    assert sorted(path.name for path in opened.folder.iterdir()) == list(ALL_FILES)


def test_equal_files_give_equal_bytes(model_folder: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(model_folder, tmp_path / "twin")
    for path in twin.iterdir():
        path.chmod(0o600)
    write_archive(twin, tmp_path / "other" / "name.tar.gz")
    first = (tmp_path / "model.tar.gz").read_bytes()
    assert (tmp_path / "other" / "name.tar.gz").read_bytes() == first


def test_an_archive_tells_nothing_of_who_packed_it(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        assert tar.getnames() == list(ALL_FILES)
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.mode) == (0, 0, 0, 0o644)
            assert (info.uname, info.gname) == ("", "")
    assert archive.read_bytes()[3:8] == bytes(5)  # neither name nor time


def test_a_failed_write_leaves_the_former_archive_and_no_litter(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = (tmp_path / "model.tar.gz").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_archive(model_folder, tmp_path / "model.tar.gz")
    assert (tmp_path / "model.tar.gz").read_bytes() == former
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.tar.gz"]


def test_what_the_manifest_does_not_say_is_not_packed(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "labels.json").write_text('["a", "b", "c"]')
    with pytest.raises(ArchiveError, match=r"labels\.json"):
        write_archive(model_folder, tmp_path / "new.tar.gz")
    assert not (tmp_path / "new.tar.gz").exists()


def unpacked(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


@settings(max_examples=150)
@given(data=st.data())
def test_a_flipped_bit_is_refused(
    archive: Path, tmp_path_factory: Any, data: st.DataObject
) -> None:
    content = bytearray(archive.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    # A few bits of a gzip file carry nothing: without them the model is still the same.
    assume(unpacked(content) != unpacked(archive.read_bytes()))
    flipped = tmp_path_factory.mktemp("flipped") / "model.tar.gz"
    flipped.write_bytes(content)
    with pytest.raises(ArchiveError):
        open_model(flipped)


@settings(max_examples=50)
@given(data=st.data())
def test_a_truncated_archive_is_refused(
    archive: Path, tmp_path_factory: Any, data: st.DataObject
) -> None:
    content = archive.read_bytes()
    cut = tmp_path_factory.mktemp("cut") / "model.tar.gz"
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ArchiveError):
        open_model(cut)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], model_folder: Path, name: str
) -> None:
    left = [entry for entry in members if entry[0].name != name]
    with pytest.raises(ArchiveError, match=name):
        open_model(pack(model_folder.parent / "less.tar.gz", left))
    (model_folder / name).unlink()
    with pytest.raises(ArchiveError, match=name):
        open_model(model_folder)


@pytest.mark.parametrize(
    "extra",
    [
        member("extra.txt", b"x"),
        member("/etc/kennel", b"x"),
        member("../outside", b"x"),
        member("sub/../../outside", b"x"),
        member("./model.onnx", b"x"),
        member("model.onnx", b"x"),
        member("code", b"x"),
        member("code/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("code/../model.onnx", b"x"),
        member("code/../../outside", b"x"),
        member("sub/", type=tarfile.DIRTYPE),
        member(".", b"x"),
        member("model.onnx/", b"x"),
        member("//etc/kennel", b"x"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("x" * 300, b"x"),
    ],
    ids=lambda extra: extra[0].name[:20],
)
def test_an_extra_path_is_refused_and_nothing_is_written_outside(
    members: list[tuple[tarfile.TarInfo, bytes]],
    tmp_path: Path,
    extra: tuple[tarfile.TarInfo, bytes],
) -> None:
    for place in (0, len(members)):
        entries = [*members[:place], extra, *members[place:]]
        with pytest.raises(ArchiveError):
            open_model(pack(tmp_path / "more.tar.gz", entries), tmp_path / "deep" / "work")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "deep",
        "model",
        "model.tar.gz",
        "more.tar.gz",
    ]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["work"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "config.json"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
        {"type": tarfile.BLKTYPE},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
        {"type": tarfile.CONTTYPE},
        {"type": tarfile.GNUTYPE_SPARSE},
    ],
    ids=lambda attributes: attributes["type"].decode(),
)
def test_only_regular_files_are_taken(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path, attributes: dict[str, Any]
) -> None:
    odd = [
        member("labels.json", **attributes) if m[0].name == "labels.json" else m for m in members
    ]
    with pytest.raises(ArchiveError, match="not a regular file"):
        open_model(pack(tmp_path / "odd.tar.gz", odd))


@pytest.mark.parametrize(
    ("name", "size"), [("labels.json", 2**24 + 1), ("model.onnx", 2**31 + 1), ("model.onnx", 2**60)]
)
def test_an_oversized_file_is_refused_before_it_is_unpacked(
    tmp_path: Path, name: str, size: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    path = tmp_path / "large.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(ArchiveError, match="more than"):
        open_model(path)


def test_an_extended_header_is_refused_however_long_it_says_it_is(tmp_path: Path) -> None:
    info = tarfile.TarInfo("model.onnx")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    path = tmp_path / "extended.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    with pytest.raises(ArchiveError, match="more than the 1048576 allowed"):
        open_model(path)


@pytest.mark.parametrize(
    "records",
    [
        b"x",
        b"0 path=a\n",
        b"9 path=a\n",
        b"11 path=ab\n7",
        b"99 path=model.onnx\n",
        b"12 size=2e9\n",
        b"10 size=9\n" + b"x",
        b"15 path=/x.onnx\n",
    ],
)
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_damaged_or_odd_extended_header_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path, records: bytes, kind: bytes
) -> None:
    entries = [member("pax", records, type=kind), *members]
    with pytest.raises(ArchiveError):
        open_model(pack(tmp_path / "odd.tar.gz", entries, format=tarfile.GNU_FORMAT))


FORMS = {
    "a folder": "tar czf {archive} .",
    "by name": "tar czf {archive} *",
    "with an entry for the folder itself": "tar czf {archive} ./",
    "ustar": "tar czf {archive} --format=ustar .",
    "oldgnu": "tar czf {archive} --format=oldgnu *",
    "v7": "tar czf {archive} --format=v7 .",
    "posix with times": "tar czf {archive} --format=posix .",
    "posix with owners": "tar czf {archive} --format=posix --owner=Jürgen --group=Käufer .",
    "python": "{python} -m tarfile -c {archive} *",
    "python, one folder": "{python} -m tarfile -c {archive} .",
    "large records": "tar czf {archive} -b 512 .",
    "with a global header": "tar czf {archive} --format=posix --pax-option=comment=abc .",
}


@pytest.mark.parametrize(
    ("form", "has_code"),
    [
        pytest.param(form, has_code, id=f"{name}{', with code' if has_code else ''}")
        for name, form in FORMS.items()
        for has_code in (False, True)
        if not (has_code and name == "v7")  # names of less than 100 bytes
    ],
)
def test_every_usual_form_of_a_tar_file_is_taken(
    model_folder: Path, tmp_path: Path, form: str, has_code: bool
) -> None:
    if has_code:
        deep = model_folder.joinpath("code", "inference", *(["a_long_name_of_a_folder"] * 5))
        deep.mkdir(parents=True)
        (model_folder / "code/requirements.txt").write_text("numpy\n")
        (deep / "größe.py").write_text("x = 1\n")
    archive = tmp_path / "packed.tar.gz"
    command = form.format(archive=archive, python=PYTHON)
    subprocess.run(["bash", "-ec", command], cwd=model_folder, check=True)
    opened = open_model(archive, tmp_path / "work")
    assert opened.digest == open_model(model_folder).digest
    assert sorted(path.name for path in opened.folder.iterdir()) == list(ALL_FILES)


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix"])
def test_code_may_hold_one_file_under_two_names(
    model_folder: Path, tmp_path: Path, form: str
) -> None:
    deep = model_folder.joinpath("code", "a" * 90)
    deep.mkdir(parents=True)
    (deep / "__init__.py").touch()
    (deep / "twin.py").hardlink_to(deep / "__init__.py")
    archive = tmp_path / "packed.tar.gz"
    subprocess.run(["tar", "czf", archive, f"--format={form}", "."], cwd=model_folder, check=True)
    with tarfile.open(archive) as tar:
        assert any(info.islnk() for info in tar)
    assert open_model(archive).digest == open_model(model_folder).digest


@pytest.mark.parametrize("target", ["/etc/passwd", "model.onnx", "code/later", "code/link", ""])
def test_a_hard_link_to_something_else_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path, target: str
) -> None:
    link = member("code/link", type=tarfile.LNKTYPE, linkname=target)
    with pytest.raises(ArchiveError, match="code/link"):
        open_model(pack(tmp_path / "odd.tar.gz", [*members, link]))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_packs_is_taken(model_folder: Path, tmp_path: Path, form: int) -> None:
    (model_folder / "code").mkdir()
    (model_folder / "code" / ("n" * 90 + ".py")).touch()
    for name in (".", ""):
        with tarfile.open(tmp_path / "packed.tar.gz", "w:gz", format=form) as tar:
            tar.add(model_folder, name)
        assert open_model(tmp_path / "packed.tar.gz").labels == ("Red", "Green", "Blue")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "._model.onnx").touch(), "COPYFILE_DISABLE=1"),
        (lambda folder: (folder / ".DS_Store").touch(), r"\.DS_Store.*remove it"),
        (lambda folder: (folder / "code").touch(), "'(./)?code'"),
        (lambda folder: (folder / "model").mkdir(), "model.*remove it"),
        (
            lambda folder: [(folder / "code").mkdir(), (folder / "code/x").symlink_to("/etc")],
            "code/x",
        ),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe"),
    ],
)
def test_a_folder_and_its_archive_are_refused_alike(
    model_folder: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(model_folder)
    archive = tmp_path / "packed.tar.gz"
    subprocess.run(["tar", "czf", archive, "."], cwd=model_folder, check=True)
    for path in (model_folder, archive):
        with pytest.raises(ArchiveError, match=message):
            open_model(path)


def test_an_archive_of_a_folder_and_not_of_its_content_says_how_to_pack_it(
    model_folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "packed.tar.gz"
    subprocess.run(["tar", "czf", archive, "model"], cwd=model_folder.parent, check=True)
    with pytest.raises(ArchiveError, match=r"tar czf model\.tar\.gz -C FOLDER \."):
        open_model(archive)


@pytest.mark.parametrize("content", [b"PK\3\4 zipped", b"model", bytes(2000)])
def test_what_is_not_packed_with_gzip_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match="not a gzip file"):
        open_model(tmp_path / "model.tar.gz")


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        ("mkfifo code; tar czf {archive} .", "'./code' is not a regular file.*: put the file"),
        ("ln -f config.json labels.json; tar czf {archive} .", "json' is not a reg.*dereference"),
        ("ln -sf config.json labels.json; tar czf {archive} .", "json' is not a reg.*tar czhf"),
        ("tar czPf {archive} $PWD", "leads out of the model: pack with `tar czf"),
        ("touch {archive}", "it is empty: copy it again"),
        ("tar cz . | head -c 500 > {archive}", "damaged or cut short: copy it again"),
        ("(tar cz .; echo more) > {archive}", "damaged or cut short: copy it again"),
        ("tar cf {archive} .", "but a tar without compression: pack it with `tar czf"),
        ("printf '\\3757zXZ' > {archive}", "but packed by xz: pack it with `tar czf"),
        ("printf BZh9 > {archive}", "but packed by bzip2: pack it"),
        ("printf 'PK\\3\\4' > {archive}", "but a zip file, or what torch.save writes: pack it"),
        ("printf 'version https://git-lfs.x' > {archive}", "but a pointer of Git LFS: pack it"),
        ("tar cz . | gzip > {archive}", "it holds no tar, or a damaged one: pack it with `tar czf"),
        ("gzip < model.onnx > {archive}", "it holds no tar, or a damaged one: pack it with `tar"),
        ("(tar c .; tar c .) | gzip > {archive}", "data after the last file.*: pack it with `tar"),
        ("true", "there is no such file or folder"),
    ],
)
def test_a_refusal_says_what_to_do(
    model_folder: Path, tmp_path: Path, pack: str, message: str
) -> None:
    archive = tmp_path / "packed.tar.gz"
    command = pack.format(archive=archive)
    subprocess.run(["bash", "-ec", command], cwd=model_folder, check=True)
    with pytest.raises(ArchiveError, match=message):
        open_model(archive)


def test_code_without_end_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.archive._MAX_CODE_BYTES", 1000)
    entries = [*members, *(member(f"code/{n}", bytes(300)) for n in range(4))]
    with pytest.raises(ArchiveError, match="code is too large"):
        open_model(pack(tmp_path / "large.tar.gz", entries))


@pytest.mark.parametrize(
    "tail", [b"x", bytes(10**6), gzip.compress(b"more", mtime=0), bytes(20_000) + b"x"]
)
def test_data_after_the_last_file_is_refused(archive: Path, tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "longer.tar.gz"
    path.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()) + tail))
    with pytest.raises(ArchiveError, match="after the last file"):
        open_model(path)


def test_a_folder_with_a_link_or_a_stranger_is_refused(model_folder: Path) -> None:
    (model_folder / "stranger").touch()
    with pytest.raises(ArchiveError, match="stranger"):
        open_model(model_folder)
    (model_folder / "stranger").unlink()
    labels = model_folder / "labels.json"
    labels.rename(model_folder.parent / "labels.json")
    labels.symlink_to(model_folder.parent / "labels.json")
    with pytest.raises(ArchiveError, match=r"labels\.json"):
        open_model(model_folder)


def test_a_folder_may_hold_the_code_of_a_classic_container(model_folder: Path) -> None:
    (model_folder / "code").mkdir()
    (model_folder / "code" / "inference.py").touch()
    assert open_model(model_folder).labels == ("Red", "Green", "Blue")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels.json", "[]", "labels"),
        ("labels.json", '["a", "a"]', "labels"),
        ("labels.json", '["a", "b", "\\ud800"]', "labels"),
        ("labels.json", '{"a": 1}', "labels"),
        ("labels.json", "[1]", "labels"),
        ("labels.json", "[" * 100_000, "not JSON"),
        ("labels.json", "\xff", "labels"),
        ("preprocess.json", "{}", "missing or unknown field"),
        ("config.json", "[]", "config.json: must be a JSON object"),
        ("config.json", "{", "config.json: not JSON"),
        ("metrics.json", "1", "metrics.json: must be a JSON object"),
    ],
)
def test_sound_digests_do_not_excuse_wrong_content(
    model_folder: Path, rewrite: "Change", file: str, content: str, message: str
) -> None:
    (model_folder / file).write_text(content, "latin-1")
    rewrite(model_folder)
    with pytest.raises(ArchiveError, match=message):
        open_model(model_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"files": {}},
        {"files": None},
        {"backbone": None},
        {"backbone": "../x"},
        {"precision": "fp8"},
    ],
    ids=json.dumps,
)
def test_a_wrong_manifest_is_refused(
    model_folder: Path, rewrite: "Change", change: dict[str, Any]
) -> None:
    rewrite(model_folder, **change)
    with pytest.raises(ArchiveError, match="manifest"):
        open_model(model_folder)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_what_is_no_model_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "thing")
    with pytest.raises(ArchiveError, match="thing"):
        open_model(tmp_path / "thing")
