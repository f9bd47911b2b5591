import base64
import datetime
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headwater.errors import Permanent, Transient
from headwater_worker.egress import Policy, Proxy, dial, handshake

from .conftest import Names, Speak

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
TRUSTED_SINCE, TRUSTED_UNTIL = NOW - 30 * DAY, NOW + 30 * DAY


@dataclass(frozen=True)
class Identity:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def issue(
    name: str,
    issuer: Identity | None = None,
    *,
    authority: bool = False,
    since: datetime.datetime = TRUSTED_SINCE,
    until: datetime.datetime = TRUSTED_UNTIL,
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not authority:
        alternatives = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Identity(builder.sign(signer, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def authority() -> Identity:
    return issue("Test authority", authority=True)


Secure = Callable[[Identity], int]


@pytest.fixture
def secure(speak: Speak, tmp_path: Path) -> Secure:
    """Start a TLS server with an identity; gives its port."""

    def start(identity: Identity) -> int:
        pem = tmp_path / "server.pem"
        key = identity.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem.write_bytes(key + identity.pem().encode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)

        def talk(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.sendall(b"hello")

        return speak(talk)

    return start


def shake(port: int, name: str, authority: Identity, seconds: float = 2) -> bytes:
    connection = dial("127.0.0.1", port, 2, Policy.parse("127.0.0.1"))
    with handshake(connection, name, timeout_seconds=seconds, authority_pem=authority.pem()) as tls:
        return tls.recv(5)


@pytest.mark.parametrize("name", ["db.example", "DB.Example.", "127.0.0.9"])
def test_a_certificate_for_the_name_is_accepted(name: str, authority: Identity, secure: Secure) -> None:
    """The name that the user wrote is verified, although the connection went to an address."""
    assert shake(secure(issue("db.example", authority)), name, authority) == b"hello"


@pytest.mark.parametrize("name", ["other.example", "127.0.0.1"])
def test_a_certificate_for_another_name_is_refused(name: str, authority: Identity, secure: Secure) -> None:
    """The address that was dialled does not count as the name."""
    with pytest.raises(Permanent) as caught:
        shake(secure(issue("db.example", authority)), name, authority)
    assert (caught.value.code, "another name" in caught.value.message) == ("tls_invalid", True)


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [(NOW - 9 * DAY, NOW - DAY, "has expired"), (NOW + DAY, NOW + 9 * DAY, "not valid yet")],
)
def test_a_certificate_out_of_its_time_is_refused(
    since: datetime.datetime, until: datetime.datetime, said: str, authority: Identity, secure: Secure
) -> None:
    """Expired and not yet valid are told apart: one is renewed, the other is a clock."""
    with pytest.raises(Permanent) as caught:
        shake(secure(issue("db.example", authority, since=since, until=until)), "db.example", authority)
    assert (caught.value.code, said in caught.value.message) == ("tls_invalid", True)


def test_an_unknown_authority_is_refused(authority: Identity, secure: Secure) -> None:
    """A good certificate of somebody else's authority is no proof."""
    stranger = issue("Stranger", authority=True)
    with pytest.raises(Permanent) as caught:
        shake(secure(issue("db.example", stranger)), "db.example", authority)
    assert (caught.value.code, "not issued by" in caught.value.message) == ("tls_invalid", True)


def test_a_self_signed_certificate_is_refused_and_named(authority: Identity, secure: Secure) -> None:
    """The commonest case of a small server gets a message of its own."""
    with pytest.raises(Permanent) as caught:
        shake(secure(issue("db.example")), "db.example", authority)
    assert (caught.value.code, "self-signed" in caught.value.message) == ("tls_invalid", True)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 ftp ready\r\n", b""])
def test_a_server_without_tls_is_told(answer: bytes, authority: Identity, speak: Speak) -> None:
    """A plain server on the port is not a certificate problem."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with pytest.raises(Permanent) as caught:
        shake(speak(talk), "db.example", authority)
    assert (caught.value.code, "does not speak TLS" in caught.value.message) == ("tls_invalid", True)


@pytest.mark.parametrize(("name", "accepted"), [("db.example", True), ("other.example", False)])
def test_tls_through_the_proxy_verifies_the_real_name(
    name: str, accepted: bool, authority: Identity, secure: Secure, names: Names
) -> None:
    """The proxy sees bytes alone: client and server agree on TLS end to end, for the name and not the address."""
    names[name] = [["127.0.0.1"]]
    port = secure(issue("db.example", authority))
    with Proxy(Policy.parse("127.0.0.1")) as proxy:
        parts = urlsplit(proxy.url)
        client = http.client.HTTPConnection("127.0.0.1", parts.port)
        token = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        client.set_tunnel(name, port, {"Proxy-Authorization": f"Basic {token}"})
        client.connect()
        try:
            with handshake(client.sock, name, timeout_seconds=2, authority_pem=authority.pem()) as tls:
                heard = tls.recv(5) == b"hello"
        except Permanent:
            heard = False
        client.close()
    assert heard == accepted


def test_a_handshake_that_drips_ends_in_time(authority: Identity, speak: Speak) -> None:
    """A byte now and then does not extend the deadline."""

    def talk(connection: socket.socket) -> None:
        connection.settimeout(0.05)
        # The start of a record of 16 kB that never ends.
        for byte in b"\x16\x03\x03\x40\x00" + bytes(1000):
            connection.sendall(bytes([byte]))
            try:
                if connection.recv(4096) == b"":
                    return
            except TimeoutError:
                continue

    with pytest.raises(Transient) as caught:
        shake(speak(talk), "db.example", authority, seconds=0.3)
    assert caught.value.code == "timeout"


def test_a_bad_authority_is_a_bad_config(authority: Identity, secure: Secure) -> None:
    """What was given as a certificate must be one."""
    connection = dial("127.0.0.1", secure(issue("db.example", authority)), 2, Policy.parse("127.0.0.1"))
    with pytest.raises(Permanent) as caught:
        handshake(connection, "db.example", timeout_seconds=2, authority_pem="not PEM")
    assert (caught.value.code, connection.fileno()) == ("config_invalid", -1)
