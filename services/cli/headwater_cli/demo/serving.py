"""Small HTTP servers on loopback, each one function from a request to an answer."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from headwater_cli.ports import LOOPBACK

_POLL_SECONDS: Final = 0.05  # how long the end may wait for the server's loop to notice
_MOST_BYTES: Final = 64 * 1024  # of a request's body


@dataclass(frozen=True)
class Request:
    """What was asked. `target` is path and query as they came; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each name."""
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def bearer(self) -> str:
        """The bearer token; empty without one."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind.lower() == "bearer" else ""


@dataclass(frozen=True)
class Answer:
    """Status, headers without the length, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def as_json(content: Any, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Answer(status, {"Content-Type": "application/json", **headers}, body)


@contextmanager
def serve(port: int, answer: Callable[[Request], Answer]) -> Iterator[str]:
    """Serve GET and POST on loopback; gives the origin. Port 0 is a free one. Raises OSError when it is taken."""
    with _Server((LOOPBACK, port), _handler(answer)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="demo-http", daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is nobody's trouble."""


def _handler(answer: Callable[[Request], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._say(answer(self._request(b"")))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > _MOST_BYTES:
                self.close_connection = True
                self._say(as_json({"error": "too_large"}, 413))
                return
            self._say(answer(self._request(self.rfile.read(int(length)))))

        def _request(self, body: bytes) -> Request:
            headers = {name.lower(): value for name, value in self.headers.items()}
            return Request(self.command, self.path, headers, body)

        def _say(self, found: Answer) -> None:
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a sync asks often."""

    return Handler
