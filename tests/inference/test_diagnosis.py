import base64
import bz2
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from inference.preprocess import ImageError, decode_rgb


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    body = io.BytesIO()
    Image.new(mode, (64, 48)).save(body, kind, **options)
    return body.getvalue()


def texts(count: int, length: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for number in range(count):
        info.add_text(f"Comment{number}", "x" * length, zip=True)
    return info


def with_frame_header(change: bytes, offset: int) -> bytes:
    """A JPEG file whose header of the frame is changed there."""
    body = encoded("JPEG")
    start = body.index(b"\xff\xc0") + offset
    return body[:start] + change + body[start + len(change) :]


def with_chunk(kind: bytes, content: bytes) -> bytes:
    body = encoded("PNG")
    chunk = struct.pack(">I", len(content)) + kind + content
    return body[:33] + chunk + struct.pack(">I", zlib.crc32(kind + content)) + body[33:]


# As of a file of more than 127 bytes: such a size does not survive as text.
RESIZED_WEBP = encoded("WEBP").replace(b"RIFF" + encoded("WEBP")[4:8], b"RIFF\x80\x81\0\0")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (encoded("PNG", pnginfo=texts(1, 2 * 2**20)), "metadata .* too large: save it without"),
        (encoded("PNG", pnginfo=texts(80, 1000 * 2**10)), "metadata .* too large: save it without"),
        (encoded("PNG", icc_profile=bytes(2 * 2**20)), "metadata .* too large: save it without"),
        (with_frame_header(b"\x0c", 4), "12 bits a colour: save it as JPEG with 8"),
        (with_frame_header(b"\5", 9), "5 colour layers: save it as JPEG with 3"),
        (with_frame_header(bytes(4), 5), "no size"),
        (with_frame_header(b"\xc3", 1), "damaged in its picture data"),
        (with_chunk(b"tRNS", b"\0"), "one of its PNG chunks"),
        (encoded("PNG").replace(b"IDAT", b"IDAU"), "PNG chunks|checksum"),
        (encoded("JPEG")[:-20], "truncated: copy it again"),
        (encoded("JPEG", progressive=True)[:-20], "truncated: copy it again"),
        (encoded("WEBP")[:-20], "damaged in its picture data: copy it again"),
        (b"", "an empty file.*: copy it again"),
        (bytes(5000), "a file of zeros.*: copy it again"),
        (encoded("GIF"), "a GIF picture.*: save it as JPEG"),
        (encoded("TIFF"), "a TIFF or raw picture"),
        (encoded("BMP"), "a BMP picture"),
        (encoded("ICO"), "an icon"),
        (encoded("PPM"), "a PPM picture"),
        (encoded("JPEG2000"), "a JPEG 2000 picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture.*: save it as JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "an AVIF picture"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "an AVIF picture"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "a video"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "a web page.*: fetch the photo itself"),
        (
            b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code>",
            "XML.*: fetch the photo itself",
        ),
        (b"[InternetShortcut]\r\nURL=https://a", "a shortcut.*: copy the photo itself"),
        (b"\0\0\2" + bytes(9) + b"\4\0\4\0\x18\0", "^not a JPEG, PNG or WebP"),  # TGA, no icon
        (b'{"message": "Forbidden"}', "JSON.*: fetch the photo itself"),
        (base64.b64encode(encoded("JPEG")), "base64.*: decode it"),
        (b"data:image/png;base64," + base64.b64encode(encoded("PNG")), "base64.*: decode it"),
        (b"\n" + encoded("JPEG"), "a picture behind text.*as binary"),
        (b"\xef\xbb\xbf" + encoded("JPEG"), "a picture behind text.*as binary"),
        (encoded("JPEG").decode("latin-1").encode(), "treated as text.*as binary"),
        (encoded("JPEG").decode(errors="replace").encode(), "treated as text.*as binary"),
        (encoded("PNG").decode("latin-1").encode(), "treated as text.*as binary"),
        (encoded("PNG").decode(errors="replace").encode(), "treated as text.*as binary"),
        (encoded("PNG").replace(b"\r\n", b"\n"), "treated as text.*as binary"),
        (RESIZED_WEBP.decode("latin-1").encode(), "treated as text.*as binary"),
        (RESIZED_WEBP.decode(errors="replace").encode(), "treated as text.*as binary"),
        (b"--x\r\nContent-Type: image/png\r\n\r\n" + encoded("PNG"), "a picture behind text"),
        (bz2.compress(encoded("JPEG")), "an archive.*: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"PK\3\4" + bytes(50), "an archive.*: unpack it"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a companion file of macOS"),
        (b"words", "^not a JPEG, PNG or WebP image, or its header is damaged$"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_a_refusal_says_the_cause_and_the_remedy(body: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_rgb(body, 32)


def test_a_jpeg_with_much_metadata_is_a_picture() -> None:
    body = encoded("JPEG")
    for marker in (0xE1, 0xE2, 0xED, 0xFE):
        segment = b"\xff" + bytes([marker]) + struct.pack(">H", 65_002) + b"x" * 65_000
        assert decode_rgb(body[:2] + 40 * segment + body[2:], 32).shape == (48, 64, 3)


def test_what_pillow_warns_of_is_no_noise() -> None:
    # In a process of its own, since pytest keeps other rules about warnings.
    damaged = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 9)
    code = "import sys; from inference.preprocess import *; decode_rgb(sys.stdin.buffer.read(), 32)"
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        cwd=Path(__file__).parents[2],
        input=encoded("JPEG", exif=damaged),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
