"""A request turned away: one exception, one JSON form."""

from collections.abc import Mapping

from starlette.responses import JSONResponse


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
