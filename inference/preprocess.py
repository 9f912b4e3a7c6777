"""Image bytes to the pixels a model sees: one transform for training and serving, no torch."""

import io
import math
import threading
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from inference import diagnosis

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
DECODER_VERSION = 2
"""Raised whenever `decode_rgb` or `resize_shorter` may give other pixels or refuse other files;
belongs in cache keys."""

FORMATS = ("JPEG", "PNG", "WEBP")  # multi-picture phone files (MPO) open as JPEG
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MAX_SIDE = 4096
_TOO_LARGE = f"image has more than {MAX_PIXELS // 10**6} megapixels"

# Pictures larger than a usual phone's are decoded one at a time: conversion holds up to 8 bytes a
# pixel, and memory must not grow with the number of threads.
_LARGE_PIXELS = 13_000_000
_large_picture = threading.Lock()

# What Pillow warns of (odd metadata, many pixels) is judged here, and it names no file.
warnings.filterwarnings("ignore", module=r"PIL\.")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """The bytes are no usable picture; the message says why and repeats none of them."""


class ImageTooLargeError(ImageError):
    """The picture has more pixels than `MAX_PIXELS`, or would have once it is scaled."""


@dataclass(frozen=True)
class Preprocess:
    """A model's input transform.

    Attributes:
        resize: Length in pixels that the shorter side is scaled to.
        crop: Side in pixels of the square cut from the centre.
        interpolation: `bilinear` or `bicubic`, antialiased.
        mean: Mean of red, green and blue, for pixels scaled to 0..1.
        std: Standard deviation of red, green and blue, for pixels scaled to 0..1.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Give the content of `preprocess.json`."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: A field is missing, unknown or out of range; the message names it.
        """
        if not isinstance(content, Mapping):
            raise ValueError("preprocess.json must be an object")
        names = {field.name for field in fields(cls)}
        if wrong := sorted(map(str, names ^ content.keys())):
            raise ValueError(f"preprocess.json: missing or unknown field: {', '.join(wrong)}")
        for name in ("resize", "crop"):
            side = content[name]
            if type(side) is not int or not 1 <= side <= MAX_SIDE:
                raise ValueError(f"preprocess.json: {name} must be an integer of 1..{MAX_SIDE}")
        if content["interpolation"] not in tuple(FILTERS):
            raise ValueError(f"preprocess.json: interpolation must be one of {', '.join(FILTERS)}")
        return cls(
            resize=content["resize"],
            crop=content["crop"],
            interpolation=content["interpolation"],
            mean=_channels(content["mean"], "mean", low=0.0),
            std=_channels(content["std"], "std", low=1e-6),
        )


def _channels(value: Any, name: str, low: float) -> tuple[float, float, float]:
    numbers = isinstance(value, list | tuple) and all(type(v) in (int, float) for v in value)
    if not numbers or len(value) != 3 or not all(low <= v <= 1.0 for v in value):
        raise ValueError(f"preprocess.json: {name} must be three numbers of {low:g}..1")
    red, green, blue = (float(v) for v in value)
    return red, green, blue


def decode_rgb(body: bytes, shorter: int) -> Pixels:
    """Decode a JPEG, PNG or WebP file (of an animation, the first frame) upright, as RGB.

    Large JPEG files are decoded at a half, a quarter or an eighth of their size, as long as both
    sides keep at least twice `shorter`, which `resize_shorter` then hardly tells from the whole.

    Args:
        body: The file's content.
        shorter: The length in pixels that the shorter side is going to be scaled to.

    Returns:
        Pixels [height, width, 3].

    Raises:
        ImageError: Damaged or of another format.
        ImageTooLargeError: Too many pixels; they are counted before decoding.
    """
    return np.asarray(_decode(body, shorter)[0])


def decode_noted(body: bytes, shorter: int) -> tuple[Pixels, str | None]:
    """Decode as `decode_rgb` does, and say what was lost or changed on the way to 8-bit RGB."""
    picture, note = _decode(body, shorter)
    return np.asarray(picture), note


def resize_shorter(rgb: Pixels, size: int, interpolation: str) -> Pixels:
    """Scale pixels [height, width, 3] so that the shorter side measures `size` pixels.

    Source: torchvision.transforms.Resize on a PIL image; the longer side is rounded down.
    """
    return np.asarray(_resize(Image.fromarray(rgb), size, interpolation))


def center_crop(rgb: Pixels, size: int) -> Pixels:
    """Cut a centred square [size, size, 3]; what lies outside of the picture is black.

    Source: torchvision.transforms.CenterCrop.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < size:
        missing = [max(size - side, 0) for side in (height, width)]
        rgb = np.pad(rgb, [*((m // 2, m - m // 2) for m in missing), (0, 0)])
        height, width = rgb.shape[:2]
    top, left = _crop_start(height, size), _crop_start(width, size)
    return rgb[top : top + size, left : left + size]


def load_image(body: bytes, preprocess: Preprocess) -> Pixels:
    """Decode, scale and crop an image file.

    Returns:
        Pixels [crop, crop, 3]; normalization is part of the model.

    Raises:
        ImageError: As `decode_rgb`.
    """
    picture, _ = _decode(body, preprocess.resize)
    if _is_croppable(picture.size, preprocess):
        return _resize_cropped(picture, preprocess)
    scaled = _resize(picture, preprocess.resize, preprocess.interpolation)
    return center_crop(np.asarray(scaled), preprocess.crop)


def _decode(body: bytes, shorter: int) -> tuple[Image.Image, str | None]:
    """Parse a file: the one place where that is done, so that all agree on what is a picture."""
    try:
        picture = Image.open(io.BytesIO(body), formats=FORMATS)
        _check_size(picture.size, shorter)
        if picture.mode == "P" and not (picture.palette and picture.palette.palette):
            raise ImageError("image is damaged, its palette is missing: save it again")
        note = _conversion(picture, body)
        is_large = math.prod(picture.size) > _LARGE_PIXELS
        with _large_picture if is_large else nullcontext():
            picture.draft(None, (2 * shorter, 2 * shorter))
            picture.load()
            return _upright(_to_rgb(picture), _orientation(picture)), note
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(diagnosis.of_stranger(body)) from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(_TOO_LARGE) from None
    # Given hostile bytes, Pillow's parsers raise whatever their slips lead to.
    except Exception as error:
        raise ImageError(diagnosis.of_error(error)) from None


def _conversion(picture: Image.Image, body: bytes) -> str | None:
    # A phone's MPO file holds further pictures beside the photo, not an animation.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        return "first frame of an animation"
    if picture.mode == "CMYK":
        return "CMYK to RGB"
    if body.startswith(_PNG_SIGNATURE) and body[_PNG_BIT_DEPTH] == 16:
        return "16 bits a channel to 8"
    if picture.has_transparency_data:
        return "alpha channel dropped"
    return None


def _check_size(size: tuple[int, int], shorter: int) -> None:
    if math.prod(size) > MAX_PIXELS:
        raise ImageTooLargeError(_TOO_LARGE)
    # A picture of one pixel by millions is small itself but not once its shorter side is scaled up.
    if math.prod(_scaled(size, shorter)) > MAX_PIXELS:
        raise ImageTooLargeError(f"image of {size[0]} x {size[1]} pixels is too elongated")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # Pillow would clip at 255; its 16-bit RGB keeps high bytes
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata in a sound picture
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(orientation)
    return picture if transposition is None else picture.transpose(transposition)


def _crop_start(length: int, crop: int) -> int:
    return round((length - crop) / 2)


def _scaled(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    width, height = size
    longer = int(shorter * max(size) / min(size))
    return (shorter, longer) if width <= height else (longer, shorter)


def _resize(picture: Image.Image, size: int, interpolation: str) -> Image.Image:
    scaled = _scaled(picture.size, size)
    if scaled == picture.size:
        return picture
    return picture.resize(scaled, FILTERS[interpolation])


def _is_croppable(size: tuple[int, int], preprocess: Preprocess) -> bool:
    """Tell whether `_resize_cropped` gives the very pixels of resizing and cropping.

    Pillow scales the rows of a wide picture first, then the columns, and takes the limits of what
    it scales in 24 bits: those of the columns are exact if `resize` is a power of two.
    """
    width, height = size
    resize, crop = preprocess.resize, preprocess.crop
    is_exact = resize.bit_count() == 1 and height * resize <= 2**24
    return width > height and height != resize and crop <= resize and is_exact


def _resize_cropped(picture: Image.Image, preprocess: Preprocess) -> Pixels:
    """Resize and crop in one: what the crop leaves out is not computed, a fifth of the work."""
    resize, crop = preprocess.resize, preprocess.crop
    resampling = FILTERS[preprocess.interpolation]
    width, height = picture.size
    scaled_width, _ = _scaled(picture.size, resize)
    left, top = _crop_start(scaled_width, crop), _crop_start(resize, crop)
    upper, lower = top * height / resize, (top + crop) * height / resize
    reach = 2 * max(height / resize, 1) + 1  # of a bicubic filter
    first, last = max(0, math.floor(upper - reach)), min(height, math.ceil(lower + reach))
    rows = picture.crop((0, first, width, last)).resize((scaled_width, last - first), resampling)
    columns = rows.crop((left, 0, left + crop, last - first))
    box = (0, upper - first, crop, lower - first)
    return np.asarray(columns.resize((crop, crop), resampling, box))
