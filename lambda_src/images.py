"""What counts as an image that the endpoint may be asked about."""

from dataclasses import dataclass

from lambda_src.errors import RequestError

MAX_BYTES = 6 * 1024 * 1024
"""Largest body that SageMaker's InvokeEndpoint takes, in bytes."""

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Image:
    """An encoded image and the type that its first bytes show."""

    body: bytes
    content_type: str


def content_type_of(body: bytes) -> str | None:
    """The media type by the magic bytes of `body`: JPEG, PNG or WebP, None for anything else."""
    if body.startswith(_JPEG):
        return "image/jpeg"
    if body.startswith(_PNG):
        return "image/png"
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "image/webp"
    return None


def check_size(size: int) -> None:
    """Refuse more bytes than the endpoint takes.

    Raises:
        RequestError: 413.
    """
    if size > MAX_BYTES:
        raise RequestError(413, "too_large", f"the image is larger than {MAX_BYTES} bytes")


def image_from(body: bytes) -> Image:
    """`body` as an image that the endpoint takes; what its sender calls it does not count.

    Raises:
        RequestError: 400 for no bytes, 413 for too many, 415 for another type.
    """
    if not body:
        raise RequestError(400, "no_image", "the image is empty")
    check_size(len(body))
    content_type = content_type_of(body)
    if content_type is None:
        raise RequestError(415, "not_an_image", "the image is not a JPEG, PNG or WebP file")
    return Image(body, content_type)
