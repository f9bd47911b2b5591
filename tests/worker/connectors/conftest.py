"""A store that answers what a test tells it to, in plain HTTP or TLS; and the page that says what suites observe."""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headwater_cli import faults, home
from headwater_worker import environment
from headwater_worker.connectors.conformance import FileSourceConformance

_REPORT = "HEADWATER_CONFORMANCE_REPORT"


@dataclass(frozen=True)
class Asked:
    """One request as the stub saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the stub says. `length` claims another Content-Length than the body has."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class Stub:
    """A running stub: where it is and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)


Answering = Callable[[Asked], Answer]
StartStub = Callable[[Answering], Stub]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is what some tests are about."""


def _start(stack: ExitStack, answer: Answering, context: ssl.SSLContext | None) -> Stub:
    stub = Stub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            stub.asked.append(asked)
            said = answer(asked)
            # The other one writes a Date of its own.
            (self.send_response_only if "Date" in said.headers else self.send_response)(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
            self.end_headers()
            self.wfile.write(said.body)
            self.close_connection = said.length is not None

        do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = stack.enter_context(_Server(("127.0.0.1", 0), Handler))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        stack.callback(server.socket.close)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    stub.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    return stub


@pytest.fixture
def start_stub() -> Iterator[StartStub]:
    """Start a stub in plain HTTP on loopback."""
    with ExitStack() as stack:
        yield lambda answer: _start(stack, answer, None)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "stub.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def start_tls_stub(certificate: Path) -> Iterator[StartStub]:
    """Start a stub in TLS, with the self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ExitStack() as stack:
        yield lambda answer: _start(stack, answer, context)


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An origin where nobody may come, and the environment's proxies lead there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, origin)
            monkeypatch.setenv(name.lower(), origin)
        listener.setblocking(False)
        yield origin
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the platform has told this process of its identity; to be filled."""
    variables: dict[str, str] = {}
    monkeypatch.setattr(environment, "_identity", variables)
    return variables


@pytest.fixture(autouse=True)
def _faults_are_on_the_page(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """What a suite observes is what docs/connection-tests.md says; unless a report is asked for, to write that page."""
    if _REPORT in os.environ or not (request.cls and issubclass(request.cls, FileSourceConformance)):
        yield
        return
    report = tmp_path_factory.mktemp("report") / "faults"
    monkeypatch.setenv(_REPORT, str(report))
    yield
    if report.exists():
        page = home.checkout().joinpath("docs/connection-tests.md").read_text(encoding="utf-8")
        missing = faults.read_report(report) - faults.read_table(page)
        assert missing == set(), f"write the page anew, as the docstring of {faults.__name__} says"
