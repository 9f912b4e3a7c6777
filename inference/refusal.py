"""A request turned away: one exception, one JSON form."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from inference.contract import ContentTypeError
from inference.preprocess import ImageError, ImageTooLargeError


class RefusedError(Exception):
    """The request gets an error for an answer.

    Args:
        status: The HTTP status.
        error: The kind of error, for programs.
        message: What was wrong and what to do, for people.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, error: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.headers = headers

    def response(self) -> JSONResponse:
        """Give the answer."""
        return JSONResponse(
            {"error": self.error, "message": str(self)}, self.status, headers=self.headers
        )


def refused_input(error: ContentTypeError | ImageError) -> RefusedError:
    """Give the refusal of a body that is not declared as an image, or is no usable one."""
    match error:
        case ContentTypeError():
            return RefusedError(415, "unsupported_type", str(error))
        case ImageTooLargeError():
            return RefusedError(413, "too_large", str(error))
        case _:
            return RefusedError(400, "bad_image", str(error))
