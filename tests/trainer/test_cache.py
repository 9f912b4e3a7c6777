import io
import os
import pickle
import re
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.preprocess import (
    ImageError,
    Preprocess,
    center_crop,
    decode_rgb,
    load_image,
    resize_shorter,
)
from trainer import cache
from trainer.cache import CachedImages, Photo, Refused, decode_once
from trainer.errors import KennelError

SIZE = 32
SERVED = Preprocess(SIZE, 24, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def decode(paths: list[Path], folder: Path) -> tuple[Path, list[Photo | Refused]]:
    return decode_once(paths, folder, SIZE, "bilinear")


def expected(path: Path) -> np.ndarray:
    return resize_shorter(decode_rgb(path.read_bytes(), SIZE), SIZE, "bilinear")


def assert_holds(folder: Path, paths: list[Path]) -> None:
    """The store gives the right pixels for all `paths`, and nothing has to be read for it."""
    pixels, entries = decode(paths, folder)
    images = CachedImages(pixels, [entry for entry in entries if isinstance(entry, Photo)])
    assert len(images) == len(paths)
    for image, path in zip(images, paths, strict=True):
        np.testing.assert_array_equal(image, expected(path))


@pytest.fixture
def photos(tmp_path, save_photo) -> list[Path]:
    return [save_photo(tmp_path / f"photos/{n:02d}.png", n, (40 + n, 40)) for n in range(40)]


@pytest.mark.parametrize("size", [(32, 32), (32, 45), (301, 200), (200, 301), (5, 9), (1, 1)])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_pixels_are_those_of_the_one_transform(tmp_path, save_photo, size, ending):
    path = save_photo(tmp_path / f"a.{ending}", size=size)
    pixels, (photo,) = decode([path], tmp_path / "cache")
    (image,) = CachedImages(pixels, [photo])
    assert image.dtype == np.uint8
    assert min(image.shape[:2]) == SIZE
    np.testing.assert_array_equal(image, expected(path))


def test_views_cannot_be_written_to(tmp_path, photos):
    pixels, entries = decode(photos[:1], tmp_path / "cache")
    with pytest.raises(ValueError, match="read-only"):
        CachedImages(pixels, entries)[0][0, 0, 0] = 1


def test_pickle_carries_no_pixels(tmp_path, photos):
    pixels, entries = decode(photos, tmp_path / "cache")
    images = CachedImages(pixels, entries)
    pickled = pickle.dumps(images)
    assert len(pickled) < images[0].nbytes * len(images) / 10
    np.testing.assert_array_equal(pickle.loads(pickled)[7], images[7])


def test_unchanged_files_are_not_opened(tmp_path, photos, opened):
    (tmp_path / "photos/notes.txt").write_text("no photo")
    files = [*photos, tmp_path / "photos/notes.txt"]
    opened.clear()
    first = decode(files, tmp_path / "cache")
    assert len(opened.below(tmp_path / "photos")) == len(files), "each file is opened once"
    opened.clear()
    assert decode(files, tmp_path / "cache") == first
    assert opened.below(tmp_path / "photos") == []


def test_only_changed_and_new_files_are_opened(tmp_path, photos, save_photo, opened):
    decode(photos[:-1], tmp_path / "cache")
    save_photo(photos[3], seed=99)
    opened.clear()
    decode(photos, tmp_path / "cache")
    assert sorted(opened.below(tmp_path / "photos")) == [photos[3], photos[-1]]
    assert_holds(tmp_path / "cache", photos)


def test_a_file_swapped_for_one_of_the_same_size_and_time_is_noticed(tmp_path, save_photo):
    one, other = (save_photo(tmp_path / f"{n}.bmp.png", n, compress_level=0) for n in range(2))
    for path in (one, other):
        os.utime(path, ns=(10**18, 10**18))
    assert one.stat().st_size == other.stat().st_size
    decode([one, other], tmp_path / "cache")
    one.rename(tmp_path / "third")
    other.rename(one)
    assert_holds(tmp_path / "cache", [one, tmp_path / "third"])


@pytest.mark.parametrize("later_ns", [0, 1])
def test_a_file_rewritten_in_place_with_the_same_size_is_noticed(tmp_path, save_photo, later_ns):
    path = save_photo(tmp_path / "a.png", 0, compress_level=0)
    decode([path], tmp_path / "cache")
    before = path.stat()
    save_photo(path, 1, compress_level=0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + later_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)
    assert_holds(tmp_path / "cache", [path])


def test_same_content_is_stored_once(tmp_path, save_photo):
    files = [save_photo(tmp_path / f"{n}.png", size=(400, 400)) for n in range(12)]
    pixels, entries = decode(files, tmp_path / "cache")
    assert len(set(entries)) == 1
    assert pixels.stat().st_size == expected(files[0]).nbytes


def test_a_moved_file_is_not_decoded_again(tmp_path, photos, monkeypatch):
    before = decode(photos, tmp_path / "cache")
    (tmp_path / "photos").rename(tmp_path / "moved")
    monkeypatch.delattr(cache, "decode_noted")
    moved = [tmp_path / "moved" / path.name for path in photos]
    assert decode(moved, tmp_path / "cache") == before


def test_each_size_and_interpolation_has_its_own_store(tmp_path, photos):
    stores = {
        decode_once(photos[:1], tmp_path / "cache", size, interpolation)[0]
        for size in (16, 32)
        for interpolation in ("bilinear", "bicubic")
    }
    assert len(stores) == 4


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    body = io.BytesIO()
    image.save(body, kind, **options)
    return body.getvalue()


GREY = Image.new("L", (40, 30), 128)
COLOUR = Image.new("RGB", (40, 30), (200, 30, 90))
FRAMES = [Image.new("RGB", (40, 30), (shade, 0, 0)) for shade in (10, 200)]
ANIMATED = {"save_all": True, "append_images": FRAMES[1:]}
DEEP = Image.fromarray(np.full((30, 40), 40_000, np.uint16))


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (encoded(COLOUR, "JPEG"), None),
        (encoded(GREY, "JPEG"), None),
        (encoded(COLOUR.convert("P"), "PNG"), None),
        (encoded(COLOUR.convert("CMYK"), "JPEG"), "CMYK to RGB"),
        (encoded(DEEP, "PNG"), "16 bits a channel to 8"),
        (encoded(COLOUR.convert("RGBA"), "PNG"), "alpha channel dropped"),
        (encoded(FRAMES[0], "WEBP", **ANIMATED), "first frame of an animation"),
        (encoded(FRAMES[0], "PNG", **ANIMATED), "first frame of an animation"),
        (encoded(FRAMES[0], "MPO", **ANIMATED), None),
    ],
)
def test_conversions_are_noted(tmp_path, body, note):
    path = tmp_path / "photo"
    path.write_bytes(body)
    _, (photo,) = decode([path], tmp_path / "cache")
    assert isinstance(photo, Photo)
    assert photo.note == note


def test_a_photo_is_turned_upright(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (64, 32)).save(path, exif=orientation)
    _, (photo,) = decode([path], tmp_path / "cache")
    assert isinstance(photo, Photo)
    assert (photo.height, photo.width) == (64, 32)


def png_header(width: int, height: int) -> bytes:
    whole = bytearray(encoded(Image.new("1", (width, 1)), "PNG"))
    whole[20:24] = height.to_bytes(4, "big")
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return bytes(whole)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not a JPEG, PNG or WebP"),
        (b"not a photo at all", "not a JPEG, PNG or WebP"),
        (encoded(COLOUR, "GIF"), "not a JPEG, PNG or WebP"),
        (encoded(COLOUR, "TIFF"), "not a JPEG, PNG or WebP"),
        (encoded(COLOUR, "JPEG")[:-200], "truncated"),
        (encoded(COLOUR, "PNG")[:60], "truncated"),
        (png_header(60_000, 60_000), "megapixels"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason_and_remembered(tmp_path, opened, body, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(body)
    _, (first,) = decode([path], tmp_path / "cache")
    assert isinstance(first, Refused)
    assert reason in first.reason
    opened.clear()
    assert decode([path], tmp_path / "cache")[1] == [first]
    assert path not in opened


def png(colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 4 x 4 pixels with these chunks before its pixels."""
    width = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type] * 4
    header = struct.pack(">IIBBBBB", 4, 4, 8, colour_type, 0, 0, 0)
    data = zlib.compress((b"\0" + bytes(width)) * 4)
    content = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in content
    )


@pytest.mark.parametrize(
    "chunks",
    [(), ((b"tRNS", b"\0\0"),), ((b"PLTE", b""),), ((b"PLTE", b""), (b"tRNS", b"\0"))],
    ids=["none", "transparency only", "empty", "empty with transparency"],
)
def test_a_palette_picture_without_a_palette_is_refused_by_trainer_and_server(tmp_path, chunks):
    path = tmp_path / "bad.png"
    path.write_bytes(png(3, *chunks))
    _, (entry,) = decode([path], tmp_path / "cache")
    assert entry == Refused("image is damaged, its palette is missing: save it again")
    with pytest.raises(ImageError, match="palette is missing"):
        load_image(path.read_bytes(), SERVED)


KINDS = (b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"eXIf", b"acTL", b"fcTL", b"zTXt", b"iTXt")
TURNED = {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"}
MODES = {"JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA"), "PNG": ("P", "LA")}
SMALL = [
    encoded(COLOUR.resize((9, 7)).convert(mode), kind, **options)
    for kind, modes in MODES.items()
    for mode in modes
    for options in ({}, TURNED)
]
SMALL += [encoded(FRAMES[0], kind, **ANIMATED) for kind in ("WEBP", "PNG", "MPO")]


@st.composite
def spoilt(draw):
    """A picture file in which something may be wrong, anywhere."""
    if draw(st.booleans()):
        chunks = draw(
            st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=40)), max_size=3)
        )
        return png(draw(st.sampled_from([0, 2, 3, 4, 6])), *chunks)
    body = bytearray(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(body)))
        body[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body)


def agree_on(bodies: list[bytes], folder: Path) -> None:
    """The store takes each file or says why not, and the server does the same."""
    paths = [folder / str(place) for place in range(len(bodies))]
    for path, body in zip(paths, bodies, strict=True):
        path.write_bytes(body)
    pixels, entries = decode(paths, folder / "cache")
    images = CachedImages(pixels, [entry for entry in entries if isinstance(entry, Photo)])
    photos = iter(images)
    for body, entry in zip(bodies, entries, strict=True):
        if isinstance(entry, Refused):
            assert entry.reason.isprintable()
            with pytest.raises(ImageError, match=re.escape(entry.reason)):
                load_image(body, SERVED)
        else:
            served = load_image(body, SERVED)
            np.testing.assert_array_equal(served, center_crop(next(photos), SERVED.crop))


@settings(max_examples=15)  # many at a time, since a store takes longer to make than pictures
@given(st.lists(spoilt(), min_size=10, max_size=30, unique=True))
def test_trainer_and_server_agree_on_what_is_a_picture(tmp_path_factory, bodies):
    agree_on(bodies, tmp_path_factory.mktemp("spoilt"))


def test_an_over_large_file_is_not_read(tmp_path, monkeypatch, photos):
    monkeypatch.setattr(cache, "MAX_FILE_BYTES", 1024**2)
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(1024**2 + 1)
    _, (refused, photo) = decode([large, photos[0]], tmp_path / "cache")
    assert refused == Refused("larger than 1 MiB")
    assert isinstance(photo, Photo)


def test_a_missing_file_is_refused_until_it_is_there(tmp_path, save_photo):
    path = tmp_path / "late.png"
    assert decode([path], tmp_path / "cache")[1] == [
        Refused("cannot be read: No such file or directory")
    ]
    save_photo(path)
    assert_holds(tmp_path / "cache", [path])


def change(path: Path, found: bytes, instead: bytes) -> None:
    """Change bytes of a file where they first are."""
    body = path.read_bytes()
    assert found in body
    path.write_bytes(body.replace(found, instead, 1))


def flip(path: Path, place: int, bit: int = 0) -> None:
    body = bytearray(path.read_bytes())
    body[place] ^= 1 << bit
    path.write_bytes(body)


def change_row(store: Path, column: str, value: str) -> None:
    """Change one value, as a flipped bit can, in a file that is whole for SQLite."""
    with closing(sqlite3.connect(store / "index.sqlite")) as index, index:
        first = "sha256 = (SELECT min(sha256) FROM content)"
        index.execute(f"UPDATE content SET {column} = {value} WHERE {first}")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "index of garbage": lambda store: (store / "index.sqlite").write_bytes(b"garbage" * 999),
    "index cut": lambda store: os.truncate(store / "index.sqlite", 5000),
    "index of zeros": lambda store: (store / "index.sqlite").write_bytes(bytes(20480)),
    "index emptied": lambda store: os.truncate(store / "index.sqlite", 0),
    "index gone": lambda store: (store / "index.sqlite").unlink(),
    "index that forbids to write": lambda store: flip(store / "index.sqlite", 18, bit=1),
    "another name of a column": lambda store: change(
        store / "index.sqlite", b"offset INTEGER", b"offsft INTEGER"
    ),
    "another name of a file's column": lambda store: change(
        store / "index.sqlite", b"mtime_ns INTEGER", b"mtimd_ns INTEGER"
    ),
    "an option that is no text": lambda store: change(
        store / "index.sqlite", b"WITHOUT ROWID", b"WITHOUT \xd2OWID"
    ),
    "another offset": lambda store: change_row(store, "offset", "offset + 4"),
    "another height": lambda store: change_row(store, "height", "height - 1"),
    "another content": lambda store: change_row(store, "sha256", "substr(sha256, 2) || 'x'"),
    "another checksum": lambda store: change_row(store, "pixels_crc32", "pixels_crc32 + 1"),
    "a reason": lambda store: change_row(store, "reason", "'too large'"),
    "pixels gone": lambda store: (store / "pixels.bin").unlink(),
    "pixels cut": lambda store: os.truncate(store / "pixels.bin", 1000),
    "pixels of zeros": lambda store: (store / "pixels.bin").write_bytes(
        bytes((store / "pixels.bin").stat().st_size)
    ),
    "first bit of the pixels": lambda store: flip(store / "pixels.bin", 0),
    "a bit of the pixels": lambda store: flip(store / "pixels.bin", 70_001),
    "last bit of the pixels": lambda store: flip(store / "pixels.bin", -1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_store_is_built_anew(tmp_path, photos, damage, caplog):
    pixels, _ = decode(photos, tmp_path / "cache")
    damage(pixels.parent)
    assert_holds(tmp_path / "cache", photos)
    assert caplog.messages == [
        f"the image cache in {pixels.parent} is damaged, or of another version: built anew"
    ]
    assert_holds(tmp_path / "cache", photos)
    assert len(caplog.messages) == 1


def test_a_store_of_the_former_format_is_built_anew(tmp_path, photos):
    pixels, _ = decode(photos, tmp_path / "cache")
    (pixels.parent / "index.sqlite").unlink()
    with closing(sqlite3.connect(pixels.parent / "index.sqlite")) as index:
        index.executescript(
            "CREATE TABLE content (sha256 TEXT PRIMARY KEY, offset INTEGER, height INTEGER, "
            "width INTEGER, note TEXT, reason TEXT) WITHOUT ROWID"
        )
    assert_holds(tmp_path / "cache", photos)


def test_damaged_pixels_are_seen_for_the_photos_that_are_asked_for(tmp_path, photos):
    pixels, _ = decode(photos, tmp_path / "cache")
    before = pixels.stat().st_ino
    flip(pixels, -1)
    assert_holds(tmp_path / "cache", photos[:-1])
    assert pixels.stat().st_ino == before
    assert_holds(tmp_path / "cache", photos[-1:])


@pytest.mark.parametrize("name", ["index.sqlite", "pixels.bin"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, photos, name):
    pixels, _ = decode(photos[:1], tmp_path / "cache")
    folder = pixels.parent / name
    folder.unlink()
    folder.mkdir()
    with pytest.raises(KennelError) as refused:
        decode(photos[:1], tmp_path / "cache")
    assert str(refused.value) == (
        f"{folder} is a folder where the image cache keeps a file: remove it"
    )
    assert folder.is_dir()


BUILD = """
import resource, sys
from pathlib import Path
from trainer import cache
folder, commit_bytes, size_limit, *paths = sys.argv[1:]
cache.COMMIT_BYTES = int(commit_bytes)
if int(size_limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size_limit), resource.RLIM_INFINITY))
try:
    _, entries = cache.decode_once([Path(path) for path in paths], Path(folder), 32, "bilinear")
except cache.KennelError as error:
    sys.exit(str(error))
print(entries)
"""


def build(
    folder: Path, paths: list[Path], commit_bytes: int = 1, size_limit: int = 0
) -> "subprocess.Popen[str]":
    arguments = [str(folder), str(commit_bytes), str(size_limit), *map(str, paths)]
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, *arguments],
        cwd=Path(cache.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_build_at_once_share_one_store(tmp_path, photos):
    folder = tmp_path / "cache"
    orders = [photos, photos[::-1], photos[::2]]
    processes = [build(folder, order) for order in orders]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert_holds(folder, photos)
    pixels, _ = decode(photos, folder)
    assert pixels.stat().st_size == sum(expected(path).nbytes for path in photos)


def test_processes_that_find_damage_at_once_share_one_new_store(tmp_path, photos):
    folder = tmp_path / "cache"
    pixels, _ = decode(photos, folder)
    flip(pixels, 70_001)
    processes = [build(folder, photos, 2**20) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert_holds(folder, photos)
    assert pixels.stat().st_size == sum(expected(path).nbytes for path in photos)


def test_killed_while_building_the_store_goes_on_from_its_last_commit(tmp_path, photos, opened):
    folder = tmp_path / "cache"
    ends = np.cumsum([expected(path).nbytes for path in photos])
    # A pipe that nobody writes to stops the build at a known place.
    os.mkfifo(tmp_path / "pipe")
    process = build(folder, [*photos[:16], tmp_path / "pipe", *photos[16:]], int(ends[9]))
    try:
        deadline = time.monotonic() + 120
        while not any(file.stat().st_size > ends[9] for file in folder.rglob("pixels.bin")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()  # SIGKILL
        process.communicate()
    opened.clear()
    decode(photos, folder)
    assert sorted(opened.below(tmp_path / "photos")) == photos[10:]
    assert_holds(folder, photos)
    fresh, _ = decode(photos, tmp_path / "fresh")
    assert next(folder.rglob("pixels.bin")).read_bytes() == fresh.read_bytes()


def test_a_full_disk_is_named_and_leaves_the_store_whole(tmp_path, photos):
    folder = tmp_path / "cache"
    total = sum(expected(path).nbytes for path in photos)
    assert total > 100_000
    process = build(folder, photos[:5])
    process.communicate()
    assert process.returncode == 0
    process = build(folder, photos, size_limit=100_000)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"cannot write the image cache in {folder}" in errors
    assert "Traceback" not in errors
    assert_holds(folder, photos[:5])
    assert_holds(folder, photos)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, photos):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KennelError, match=r"cannot write the image cache in .*file"):
        decode(photos[:1], tmp_path / "file")
