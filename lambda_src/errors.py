"""The one kind of failure that a caller gets to see."""


class RequestError(Exception):
    """A request that is refused or that cannot be answered.

    Attributes:
        status: HTTP status of the answer.
        error: Short code for programs, such as `forbidden_address`.
        message: One sentence for people. It never holds a fetched body, an internal address or a
        trace.
    """

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
