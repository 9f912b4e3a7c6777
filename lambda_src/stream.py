"""A connection as http.client wants it, whose peer cannot stretch the deadline."""

import io
import socket
from typing import TYPE_CHECKING

from lambda_src.deadline import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class DeadlineStream(io.RawIOBase):
    """A connected socket for one request; a peer that drips bytes does not stretch its deadline.

    The socket stays open: whoever connected it closes it. After `most_bytes` the stream ends,
    whatever http.client asks for: a chunk of a negative size is "all there is" to it.
    """

    def __init__(
        self,
        sock: socket.socket,
        deadline: Deadline,
        read_seconds: float,
        most_bytes: int | None = None,
    ) -> None:
        self._socket = sock
        self._deadline = deadline
        self._read_seconds = read_seconds
        self._bytes_left = most_bytes

    def readable(self) -> bool:
        """Always, for io.BufferedReader."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read what is there, at the latest by the deadline."""
        self._socket.settimeout(self._deadline.left(self._read_seconds))
        allowed = memoryview(buffer)[: self._bytes_left]
        received = self._socket.recv_into(allowed) if allowed else 0
        if self._bytes_left is not None:
            self._bytes_left -= received
        return received

    def sendall(self, data: bytes) -> None:
        """Send all of it, at the latest by the deadline."""
        self._socket.settimeout(self._deadline.left(self._read_seconds))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What http.client reads the answer from."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """Leave the socket open: http.client closes its side before it reads the body."""
