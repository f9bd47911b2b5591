"""What an attacker can point at: a store of every type on an allowed address, and canaries beside it that are not."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

ALLOWED = "127.0.0.1"
DENIED = "127.0.0.2"

_RECORD = b'{"id": "1"}\n'
_S3 = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    "<EncodingType>url</EncodingType><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{}"
    "</ListBucketResult>"
)
_S3_KEY = (
    "<Contents><Key>{}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;abc&quot;</ETag>"
    "<Size>12</Size></Contents>"
)
_AZURE = '<?xml version="1.0"?><EnumerationResults><Blobs>{}</Blobs><NextMarker/></EnumerationResults>'
_AZURE_BLOB = (
    "<Blob><Name>{}</Name><Properties><Content-Length>12</Content-Length><Etag>abc</Etag>"
    "<Last-Modified>Fri, 20 Nov 2026 19:56:08 GMT</Last-Modified></Properties></Blob>"
)
_ROLE = (
    '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
    "<AccessKeyId>ASIAASSUMED</AccessKeyId><SecretAccessKey>assumed</SecretAccessKey><SessionToken>assumed"
    "</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser><Arn>a</Arn>"
    "<AssumedRoleId>b</AssumedRoleId></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
)


@dataclass(frozen=True)
class Asked:
    """One request as the store saw it."""

    path: str
    headers: dict[str, str]


@dataclass
class Field:
    """A store at `127.0.0.1:port`, and at the same port of denied addresses canaries that count who comes.

    `keys` are the files of the buckets' listings.
    """

    port: int
    canaries: list[socket.socket]
    asked: list[Asked] = field(default_factory=list)
    keys: tuple[str, ...] = ("a.jsonl",)

    @property
    def origin(self) -> str:
        """Of the store."""
        return f"http://{ALLOWED}:{self.port}"

    def hits(self) -> int:
        """Connections to canaries. The kernel completes them in the backlog, so that none is still on its way."""
        return sum(map(_accepted, self.canaries))


def _accepted(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is what some attacks come to."""


@contextmanager
def running() -> Iterator[Field]:
    """A field with nothing asked yet."""
    with ExitStack() as stack:
        server = stack.enter_context(_Server((ALLOWED, 0), BaseHTTPRequestHandler))
        made = Field(server.server_address[1], [])
        made.canaries.append(stack.enter_context(socket.create_server((DENIED, made.port))))
        with suppress(OSError):  # a machine without IPv6
            made.canaries.append(stack.enter_context(socket.create_server(("::1", made.port), family=socket.AF_INET6)))
        for canary in made.canaries:
            canary.setblocking(False)
        server.RequestHandlerClass = _handler(made)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield made


def _handler(stub: Field) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def _serve(self, method: str) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stub.asked.append(Asked(self.path, dict(self.headers.items())))
            kind, body = _answer(stub.keys, method, self.path)
            status, headers = _ploy(self.path, stub.port)
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "ETag": '"abc"',
                "Last-Modified": "Fri, 20 Nov 2026 19:56:08 GMT",
                "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}",
                "x-ms-blob-type": "BlockBlob",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _ploy(target: str, port: int) -> tuple[int, dict[str, str]]:
    """How the store tries to send its visitor elsewhere, where its name says that it does."""
    away = f"http://{DENIED}:{port}/a.jsonl"
    if "sends-away" in target:
        return 307, {"Location": away}
    if "sends-to-tls" in target:
        return 302, {"Location": f"https://{ALLOWED}:{port}/a.jsonl"}
    if "asks-for-more" in target:
        challenge = f'Bearer authorization_uri="{away}", resource_id="{away}", realm="{away}"'
        return 401, {"WWW-Authenticate": challenge, "Location": away, "x-amz-bucket-region": DENIED}
    if "is-elsewhere" in target:
        return 301, {"Location": away, "x-amz-bucket-region": "eu-west-9", "x-ms-request-server-encrypted": "true"}
    across = f"http://honest.example:{port}/across"
    if "sends-across" in target:
        return 308, {"Location": across}
    if "links-across" in target:
        return 200, {"Link": f'<{across}>; rel="next"'}
    if "links-away" in target:
        return 200, {"Link": f'<{away}>; rel="next"'}
    if "links-on" in target and "page=2" not in target:
        return 200, {"Link": '<?page=2>; rel="next"'}
    if "moved-here" in target:
        return 302, {"Location": "/v1/items"}
    return 200, {}


def _answer(keys: tuple[str, ...], method: str, target: str) -> tuple[str, bytes]:
    """What a store says that is of every type at once; which one is meant stands in the request."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    if method == "POST" and parts.path == "/token":
        return "application/json", b'{"access_token": "the-token", "expires_in": 3600}'
    if method == "POST":
        return "text/xml", _ROLE.encode()
    if "list-type" in query:
        return "application/xml", _S3.format("".join(map(_S3_KEY.format, map(quote, keys)))).encode()
    if "restype" in query:
        return "application/xml", _AZURE.format("".join(map(_AZURE_BLOB.format, keys))).encode()
    if parts.path.startswith("/storage/v1/b/"):
        items = [{"name": key, "size": "12", "generation": "1"} for key in keys]
        return "application/json", json.dumps({"items": items}).encode()
    return ("application/octet-stream", _RECORD) if "a.jsonl" in target else ("application/json", b"[" + _RECORD + b"]")
