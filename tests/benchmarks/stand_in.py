"""An endpoint of SageMaker's runtime that answers at once, for `tests.benchmarks.function`.

`python -m tests.benchmarks.stand_in PORT` serves on loopback until it is ended.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = json.dumps(
    {
        "predictions": [
            {"label": f"breed {place}", "index": place, "probability": 0.2} for place in range(5)
        ],
        "model": {"name": "kennel", "digest": "0" * 64},
    }
).encode()


class StandIn(BaseHTTPRequestHandler):
    """Reads the photo and answers; connections stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: writing takes time too."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), StandIn).serve_forever()
