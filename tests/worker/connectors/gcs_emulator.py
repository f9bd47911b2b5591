"""gcp-storage-emulator behind a gate that does what it does not: checked tokens, rights, pages of a listing."""

import functools
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import create_server
from google.auth import jwt

from headwater.connectors.gcs import ServiceAccount

READER = "reader@project-1.iam.gserviceaccount.com"
STRANGER = "stranger@project-1.iam.gserviceaccount.com"
UNKNOWN = "nobody@project-1.iam.gserviceaccount.com"

_SKEW_SECONDS = 300
_PASSED_ON = frozenset({"content-type", "content-range", "x-goog-hash"})


@dataclass(frozen=True)
class Key:
    """A key pair in PEM."""

    private: str
    public: str


@functools.cache
def key(name: str) -> Key:
    """The key pair of that name, the same for the whole process."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(private.decode(), public.decode())


def key_file(email: str, signed_with: str = "theirs") -> str:
    """The key file of an account."""
    return ServiceAccount(email, key(signed_with).private, "0123abcd", "project-1").as_json()


@dataclass
class Gate:
    """What runs: its origin, and what came through it."""

    url: str = ""
    emulator_port: int = 0
    storage: Any = None
    clock_offset_seconds: float = 0.0
    tokens: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/token"

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        buckets.create_bucket(name, self.storage)

    def put(self, bucket: str, path: str, body: bytes) -> None:
        """Write an object. Not over HTTP, where the emulator takes no empty one."""
        described = objects._make_object_resource(self.url, bucket, path, "application/octet-stream", str(len(body)))
        self.storage.create_file(bucket, path, body, objects._checksums(body, described))

    def delete(self, bucket: str, path: str) -> None:
        """Remove an object."""
        self.storage.delete_file(bucket, path)

    def grant(self, form: Mapping[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The token endpoint's answer: RFC 7523, in the words of Google's."""
        try:
            claims = jwt.decode(
                form["assertion"][0],
                certs=key("theirs").public,
                audience=self.token_url,
                clock_skew_in_seconds=10**9,
            )
        except (KeyError, ValueError):
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        if abs(claims["iat"] - time.time() - self.clock_offset_seconds) > _SKEW_SECONDS:
            words = (
                "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe. Check your iat and exp"
            )
            return 400, {"error": "invalid_grant", "error_description": words}
        if claims["iss"] not in (READER, STRANGER):
            return 400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}
        token = secrets.token_urlsafe(16)
        self.tokens[token] = claims["iss"]
        return 200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def serve(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """The storage's answer to whoever bears a token."""
        account = self.tokens.get(headers.get("authorization", "").removeprefix("Bearer "))
        if account is None:
            return _refusal(401, "authError")
        if account != READER:
            return _refusal(403, "forbidden")
        status, answer, body = self._fetched(path, headers.get("range"))
        parts = urlsplit(path)
        if status == 200 and parts.path.endswith("/o"):
            body = _page(body, {name: values[0] for name, values in parse_qs(parts.query).items()})
        return (status, answer, body) if body or status < 400 else _refusal(status, "notFound")

    def _fetched(self, path: str, span: str | None) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.emulator_port, timeout=30)
        try:
            connection.request("GET", path, headers={"Range": span} if span else {})
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() in _PASSED_ON}
            return answer.status, kept, answer.read()
        finally:
            connection.close()


def _refusal(status: int, reason: str) -> tuple[int, dict[str, str], bytes]:
    words = "the store's own words"
    error = {"code": status, "message": words, "errors": [{"domain": "global", "reason": reason, "message": words}]}
    return status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode()


def _page(body: bytes, query: Mapping[str, str]) -> bytes:
    """One page of the emulator's listing, which knows none."""
    items = sorted(json.loads(body)["items"], key=lambda item: item["name"].encode())
    items = [item for item in items if item["name"].encode() > query.get("pageToken", "").encode()]
    size = int(query.get("maxResults", 1000))
    fields = query["fields"].split("(", 1)[1].split(")", 1)[0].split(",")
    page: dict[str, Any] = {"items": [{name: item[name] for name in fields} for item in items[:size]]}
    if len(items) > size:
        page["nextPageToken"] = items[size - 1]["name"]
    return json.dumps(page).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is what some tests are about."""


def _handler(gate: Gate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            gate.asked.append(f"POST {self.path}")
            status, content = gate.grant(parse_qs(body))
            self._say(status, {"Content-Type": "application/json"}, json.dumps(content).encode())

        def do_GET(self) -> None:
            gate.asked.append(f"GET {self.path}")
            self._say(*gate.serve(self.path, {name.lower(): value for name, value in self.headers.items()}))

        def _say(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serve() -> Iterator[Gate]:
    """Run emulator and gate."""
    gate = Gate()
    with ExitStack() as stack:
        emulator = stack.enter_context(create_server("127.0.0.1", 0, in_memory=True))
        gate.emulator_port = emulator._api._httpd.server_port
        gate.storage = emulator._storage
        # It writes everything down with every object.
        gate.storage._write_config_to_file = lambda: None
        server = stack.enter_context(_Server(("127.0.0.1", 0), _handler(gate)))
        gate.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield gate
