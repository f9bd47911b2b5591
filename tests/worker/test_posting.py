"""One POST: what each answer and each failure comes to, and that it ends in time."""

import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import receiving
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from receiving import Receiver

from headwater_cli import ports
from headwater_worker import posting
from headwater_worker.egress import Policy
from headwater_worker.posting import Answer

LOOPBACK = Policy.parse("127.0.0.0/8")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving.receiver() as receiver:
        yield receiver


def post(url: str, *, policy: Policy = LOOPBACK, timeout_seconds: float = 10) -> Answer:
    return posting.post(url, headers={"X-Of": "ours"}, body=b"{}", policy=policy, timeout_seconds=timeout_seconds)


def codes(answer: Answer) -> tuple[int | None, str | None]:
    return answer.status_code, answer.error_code


def test_the_server_gets_what_was_sent(receiver: Receiver) -> None:
    """Path and query as they were given, the host as it was written, nothing of the machine."""
    answer = post(f"{receiver.url}/a%20b?token=1")
    received = receiver.next()
    assert codes(answer) == (204, None)
    assert (received.path, received.body) == ("/hook/a%20b?token=1", b"{}")
    assert received.headers == {
        "host": receiver.url.removeprefix("http://").removesuffix("/hook"),
        "x-of": "ours",
        "content-length": "2",
        "accept-encoding": "identity",
        "connection": "close",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, None), (299, None), (400, "refused"), (404, "refused"), (410, "gone"), (429, "refused"), (503, "refused")],
)
def test_what_an_answer_comes_to(receiver: Receiver, status: int, expected: str | None) -> None:
    """A success is 2xx."""
    receiver.answers.append((status, {}))
    assert codes(post(receiver.url)) == (status, expected)


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """Whoever was pointed at does not point on."""
    with receiving.receiver() as elsewhere:
        receiver.answers.append((307, {"Location": elsewhere.url}))
        assert codes(post(receiver.url)) == (307, "redirected")
        assert elsewhere.received.empty()


def test_an_address_that_is_not_allowed_is_not_dialled(receiver: Receiver) -> None:
    """Private ones are for the operator to allow."""
    assert codes(post(receiver.url, policy=Policy())) == (None, "blocked_target")
    assert receiver.received.empty()


@pytest.mark.parametrize("allowed", ["", "127.0.0.0/8", "192.0.2.0/24"])
def test_a_public_address_is_reached_by_https_only(allowed: str) -> None:
    """`http` is for networks that the operator names, public as they may be; nothing is dialled."""
    answer = post("http://198.41.0.4/", policy=Policy.parse(allowed))
    assert codes(answer) == (None, "https_required")


def test_nobody_there() -> None:
    """Refused is not late."""
    assert codes(post(f"http://127.0.0.1:{ports.free_port()}/")) == (None, "connection_refused")


def test_a_server_that_says_nothing_is_left_in_time(receiver: Receiver) -> None:
    """It has the request, and the connection ends."""
    silent = threading.Event()
    receiver.answers.append(silent)
    began = time.monotonic()
    answer = post(receiver.url, timeout_seconds=0.5)
    took = time.monotonic() - began
    silent.set()
    assert codes(answer) == (None, "timeout")
    assert took < 5


class _Slow(BaseHTTPRequestHandler):
    """Speaks a byte at a time, before each of which no timeout of a single read runs out."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        for byte in b"HTTP/1.0 200 OK\r\nX: " + b"x" * 10_000:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(0.02)

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the terminal."""


class _Endless(_Slow):
    """Speaks as much as anybody reads."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65_536)
        except OSError:
            return


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with this handler, over TLS with a context; its URL."""
    servers: list[HTTPServer] = []

    def start(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> str:
        server = HTTPServer(("127.0.0.1", 0), handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS for 127.0.0.1 that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "server.pem").write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    return context


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_trickles_is_left_in_time(serve: Serve, certified: ssl.SSLContext, secure: bool) -> None:
    """Each byte comes soon enough, all of them together do not."""
    url = serve(_Slow, certified if secure else None)
    began = time.monotonic()
    answer = post(url, timeout_seconds=1)
    assert codes(answer) == (None, "timeout")
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("secure", [False, True])
def test_an_endless_answer_is_cut_off(serve: Serve, certified: ssl.SSLContext, secure: bool) -> None:
    """What it says beyond the first bytes is nobody's business."""
    answer = post(serve(_Endless, certified if secure else None), timeout_seconds=30)
    assert codes(answer) == (200, None)
    assert answer.duration_ms < 20_000


def test_a_certificate_that_nobody_trusts_is_refused(
    serve: Serve, certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real name is verified, whatever the network is."""
    monkeypatch.delenv("SSL_CERT_FILE")
    assert codes(post(serve(_Endless, certified))) == (None, "tls_invalid")


@pytest.mark.parametrize(("sent", "expected"), [("120", 120.0), ("", None), ("soon", None), ("9999999", 3600.0)])
def test_retry_after_is_passed_on_within_reason(receiver: Receiver, sent: str, expected: float | None) -> None:
    """At most an hour."""
    receiver.answers.append((503, {"Retry-After": sent}))
    assert post(receiver.url).retry_after_seconds == expected


def test_an_answer_that_is_no_http(serve: Serve) -> None:
    """Something listens, and speaks another language."""

    class _Stranger(_Slow):
        def do_POST(self) -> None:
            self.wfile.write(b"220 mail.example.com ESMTP\r\n")

    assert codes(post(serve(_Stranger))) == (None, "network")


def test_what_is_no_url_is_no_fault(receiver: Receiver) -> None:
    """The API refuses it; a row that holds it all the same harms nobody."""
    del receiver
    answers: Any = [codes(post(url)) for url in ("https://[::1", "http://127.0.0.1:99999/")]
    assert answers == [(None, "network"), (None, "network")]
