"""An HTTP API in a thread: records behind every kind of pagination and authentication, and answers made to order."""

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Headers = dict[str, str]


@dataclass(frozen=True)
class Asked:
    """One request as the API saw it."""

    path: str
    query: dict[str, str]
    headers: Headers


@dataclass(frozen=True)
class Reply:
    """What the API says. A body of many pieces is sent piece by piece, chunked."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: Headers = field(default_factory=lambda: {"Content-Type": "application/json"})


Answering = Callable[[Asked], Reply]


@dataclass
class ApiStub:
    """A running API. `answer` says what it answers; the usual answers are made of `records` and `page_size`."""

    url: str = ""
    records: list[Any] = field(default_factory=list)
    page_size: int = 3
    answer: Answering | None = None
    asked: list[Asked] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """Where the records are."""
        return f"{self.url}/v1/items"

    def reply(self, asked: Asked) -> Reply:
        """The usual answer: everything in a JSON array."""
        return self.answer(asked) if self.answer is not None else Reply(json.dumps(self.records).encode())


def paged(stub: ApiStub, kind: str) -> Answering:
    """Pages of the stub's records in the way of `kind`, wrapped in an object but for `link_header`."""

    def answer(asked: Asked) -> Reply:
        size = stub.page_size
        start = {
            "page": lambda: (int(asked.query.get("page", "1")) - 1) * size,
            "offset": lambda: int(asked.query["offset"]),
            "cursor": lambda: int(asked.query.get("cursor", "c0")[1:]),
            "link_header": lambda: int(asked.query.get("at", "0")),
            "next_url": lambda: int(asked.query.get("at", "0")),
        }[kind]()
        records, more = stub.records[start : start + size], start + size < len(stub.records)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if kind == "link_header":
            if more:
                headers["Link"] = f'<{asked.path}?at=0>; rel="first", <{asked.path}?at={start + size}>; rel="next"'
            return Reply(json.dumps(records, indent=1).encode(), headers=headers)
        around: dict[str, Any] = {"meta": {"next_cursor": f"c{start + size}" if more else None, "next": None}}
        if more:
            around["meta"]["next"] = f"{stub.url}{asked.path}?at={start + size}"
        return Reply(json.dumps({"data": {"items": records}} | around, indent=1).encode(), headers=headers)

    return answer


PAGINATION: dict[str, dict[str, Any]] = {
    "page": {"type": "page"},
    "offset": {"type": "offset", "limit": 3},
    "cursor": {"type": "cursor", "cursor_path": "meta.next_cursor"},
    "link_header": {"type": "link_header"},
    "next_url": {"type": "next_url", "path": "meta.next"},
}


def config(stub: ApiStub, kind: str | None = None, **changes: Any) -> dict[str, Any]:
    """The config that fits `paged`."""
    made: dict[str, Any] = {"type": "api", "endpoint": stub.endpoint}
    if kind is not None:
        made["pagination"] = PAGINATION[kind]
        if kind != "link_header":
            made["records_path"] = "data.items"
    return made | changes


AUTH: dict[str, tuple[dict[str, Any], dict[str, str], Headers]] = {
    "api_key": (
        {"auth_type": "api_key", "header_name": "X-Shop-Key"},
        {"api_key": "k-3cr3t"},
        {"x-shop-key": "k-3cr3t"},
    ),
    "bearer": ({"auth_type": "bearer"}, {"token": "t-3cr3t"}, {"authorization": "Bearer t-3cr3t"}),
    "basic": (
        {"auth_type": "basic"},
        {"username": "ada", "password": "p-3cr3t:ü"},
        {"authorization": "Basic " + base64.b64encode("ada:p-3cr3t:ü".encode()).decode()},
    ),
}
"""Per `auth_type`: config, credentials, and the header that the API wants."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is what some tests are about."""


@contextmanager
def running(wrap: Callable[[Any], Any] | None = None) -> Iterator[ApiStub]:
    """A stub on a free loopback port; `wrap` makes its socket one of TLS."""
    stub = ApiStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(parts.path, dict(parse_qsl(parts.query)), headers)
            stub.asked.append(asked)
            self._say(stub.reply(asked))

        def _say(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if isinstance(reply.body, bytes):
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in reply.body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        if wrap is not None:
            server.socket = wrap(server.socket)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        stub.url = f"{'http' if wrap is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
