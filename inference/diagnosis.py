"""Why a file gives no picture, in words for the one who has to mend it.

Nothing of the file itself is repeated: the words end in logs, reports and answers.
"""

import io
import re

from PIL import Image

_HEAD_BYTES = 1024
_KINDS = (("JPEG", rb"\xff\xd8\xff"), ("PNG", rb"\x89PNG\r\n\x1a\n"), ("WEBP", rb"RIFF....WEBP"))
# What the first bytes of a file tell: a pattern, what it is, what to do.
_STRANGERS = (
    (rb"\Z", "an empty file", "copy it again"),
    (rb"\0+\Z", "a file of zeros", "copy it again"),
    (rb"GIF8", "a GIF picture", "save it as JPEG"),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF or raw picture", "save it as JPEG"),
    (rb"BM.{4}\0{4}", "a BMP picture", "save it as JPEG"),
    (rb"....ftyp(avi|(mif1|msf1)....(....){0,9}avi[fs])", "an AVIF picture", "save it as JPEG"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC picture", "save it as JPEG"),
    (rb"....ftypcr|FUJIFILMCCD|IIRO|IIU\0", "a raw picture", "save it as JPEG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", "save it as JPEG"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture", "save it as JPEG"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video", "save pictures of it as JPEG"),
    (rb"8BPS", "a Photoshop file", "save it as JPEG"),
    (rb"\0\0[\x01\x02]\0[^\0]", "an icon", "save it as JPEG"),
    (rb"P[1-7]\s", "a PPM picture", "save it as JPEG"),
    (rb"%PDF", "a PDF file", "save its pictures as JPEG"),
    (rb"(?i)\s*(<\?xml.*)?<(!doctype )?svg", "an SVG drawing", "save it as PNG"),
    (rb"(?i)\s*<(!doctype )?html", "a web page", "fetch the photo itself"),
    (rb"\s*<[!?A-Za-z]", "a web page or XML", "fetch the photo itself"),
    (rb"\[InternetShortcut\]|L\0\0\0\x01\x14\x02\0", "a shortcut", "copy the photo itself"),
    (rb"\s*[{\[]", "JSON", "fetch the photo itself"),
    (rb"\s*(data:|/9j/|iVBORw0KGgo|UklGR)", "base64", "decode it"),
    # Starts of JPEG and PNG files after a change of line ends or of the encoding.
    (
        rb"(\s+|[\s -~]+\n\r?\n)(\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP)|\xff\xd8\xff",
        "a picture behind text",
        "copy it again as binary",
    ),
    (
        rb"\xc3\xbf\xc3\x98|(\xef\xbf\xbd){3}|(\xc2\x89|\xef\xbf\xbd|\x89)PNG|RIFF.{5,12}WEBP",
        "a picture that was treated as text",
        "copy it again as binary",
    ),
    (rb"version https://git-lfs", "a pointer of Git LFS", "fetch the photo with git lfs pull"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ|\(\xb5/\xfd", "an archive", "unpack it"),
    (rb"\0\x05\x16[\0\x07]", "a companion file of macOS", "remove it"),
)
# What an error of Pillow's says, and what that means.
_ERRORS = (
    (r"MAX_TEXT", "the metadata of the image are too large: save it without them"),
    (r"checksum", "image is damaged, a checksum is wrong: copy it again"),
    (r"chunk|APNG|IHDR", "image is damaged in one of its PNG chunks: save it again"),
    (r"truncated|incomplete|buffer is not large enough", "image is truncated: copy it again"),
    (r"(\d+)-bit layers", r"image has \1 bits a colour: save it as JPEG with 8"),
    (r"(\d+)-layer images", r"image has \1 colour layers: save it as JPEG with 3"),
    (r"not identified|must be positive", "image is damaged, it has no size: copy it again"),
    (r"decoder object|next frame|(broken|unrecognized) data|cannot load|no marker|quantization",
     "image is damaged in its picture data: copy it again"),
    (r"unpack|out of range|not a WEBP|filter category",
     "image is damaged in its header: copy it again"),
)  # fmt: skip


def of_stranger(body: bytes) -> str:
    """Say what a file is that no decoder takes for its own."""
    for name, start in _KINDS:
        if re.match(start, body, re.DOTALL):
            return _of_header(name, body)
    # Only of zeros must the whole be looked at.
    head = body if body[:_HEAD_BYTES].strip(b"\0") == b"" else body[:_HEAD_BYTES]
    for pattern, what, remedy in _STRANGERS:
        if re.match(pattern, head.removeprefix(b"\xef\xbb\xbf"), re.DOTALL):
            return f"{what}, not a JPEG, PNG or WebP image: {remedy}"
    return "not a JPEG, PNG or WebP image, or its header is damaged"


def of_error(error: Exception) -> str:
    """Say what a decoder objected to."""
    text = str(error)
    for pattern, words in _ERRORS:
        if match := re.search(pattern, text, re.IGNORECASE):
            return match.expand(words)
    return f"image is damaged ({_plain(text) or type(error).__name__}): copy or save it again"


def _of_header(name: str, body: bytes) -> str:
    try:
        # `Image.open` keeps to itself why a decoder gave up.
        Image.OPEN[name][0](io.BytesIO(body), "")
    except Exception as error:  # given hostile bytes, parsers raise whatever their slips lead to
        return of_error(error)
    return "image is damaged in its header: copy it again"


def _plain(text: str) -> str:
    """Give a decoder's words without the bytes that it may quote."""
    return re.sub(r"b?(['\"]).*\1|[^ -~]", "...", text)[:100]
