"""The provider's keys: which of them count, how often they are asked for, how long they are good."""

import asyncio
import gzip
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import jwt
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from headwater import clock
from headwater.errors import Unavailable
from headwater_api import provider_keys
from headwater_api.provider_keys import ProviderKeys

from .oidc_provider import SigningKey, make_key

Result = TypeVar("Result")

DISCOVERY = "/.well-known/openid-configuration"
ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
KEY = make_key("first")


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Scripted:
    """A provider that says what it is told to say, while `open` is set. `asked` is every path."""

    server: ThreadingHTTPServer
    issuer: str = ""
    asked: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    open: threading.Event = field(default_factory=threading.Event)

    def says(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        """What it answers at a path from now on; anything but bytes as JSON."""
        self.answers[path] = (status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())

    def publishes(self, *keys: dict[str, Any]) -> None:
        """Its keys from now on."""
        self.says(DISCOVERY, {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"})
        self.says("/jwks", {"keys": list(keys)})


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A provider with one key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path)
            provider.open.wait(20)
            status, headers, body = provider.answers.get(self.path, (404, {}, b"{}"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Scripted(server, f"http://127.0.0.1:{server.server_port}")
        provider.open.set()
        provider.publishes(KEY.public_jwk)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield provider
        provider.open.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def hands() -> ManualClock:
    """The time as the keys see it."""
    return ManualClock()


@pytest.fixture
def run(scripted: Scripted, hands: ManualClock) -> Callable[[Callable[[ProviderKeys], Awaitable[Any]]], Any]:
    """Runs something with fresh keys of the scripted provider, and stops them."""

    def run(act: Callable[[ProviderKeys], Awaitable[Result]]) -> Result:
        async def whole() -> Result:
            keys = ProviderKeys(scripted.issuer, ALGORITHMS, now=hands)
            try:
                return await act(keys)
            finally:
                await keys.stop()

        return asyncio.run(whole())

    return run


def public(key: SigningKey, **changes: Any) -> dict[str, Any]:
    """A published key, with changes; a change to None leaves out."""
    return {name: value for name, value in (key.public_jwk | changes).items() if value is not None}


def test_a_key_is_found_by_id_and_algorithm(scripted: Scripted, run: Any) -> None:
    """With no more than one question, and never for an algorithm that is not its own."""
    keys = {algorithm: make_key(f"key {algorithm}", algorithm) for algorithm in sorted(ALGORITHMS)}
    scripted.publishes(*(public(key, alg=None, use=None) for key in keys.values()))

    async def act(provider: ProviderKeys) -> list[tuple[str, str]]:
        return [
            (name, algorithm)
            for name, key in keys.items()
            for algorithm in (*sorted(ALGORITHMS), "PS256", "HS256", "none")
            if (found := await provider.find(key.id, algorithm)) is not None
            and found.algorithm_name == algorithm
            and found.key == key.private.public_key()
        ]

    assert run(act) == [(name, name) for name in keys]
    assert scripted.asked == [DISCOVERY, "/jwks"]


UNFIT: dict[str, Any] = {
    "for encryption": public(KEY, use="enc"),
    "for another algorithm": public(KEY, alg="RSA-OAEP-256"),
    "for an algorithm that is not allowed": public(KEY, alg="RS384"),
    "of another kind than its algorithm": public(KEY, alg="ES256"),
    "symmetric": {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "first", "alg": "RS256", "use": "sig"},
    "symmetric and silent": {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "first"},
    "private": KEY.jwk,
    "short": public(SigningKey("first", "RS256", rsa.generate_private_key(65537, 1024))),
    "on another curve": public(SigningKey("first", "ES384", ec.generate_private_key(ec.SECP384R1())), alg="ES256"),
    "off its curve": public(make_key("first", "ES256"), x="A" * 43),
    "without an id": public(KEY, kid=None),
    "with a number for an id": public(KEY, kid=7),
    "without its numbers": public(KEY, n=None),
    "with nonsense for a number": public(KEY, n="!"),
    "with a number for a number": public(KEY, n=7),
    "of no kind": public(KEY, kty=None),
    "of a strange kind": public(KEY, kty=["RSA"]),
    "no object": "first",
    "nothing": None,
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_key_that_is_not_for_signatures_of_ours_is_not_there(scripted: Scripted, run: Any, name: str) -> None:
    """And it does not hide the good one beside it."""
    good = make_key("good", "ES256")
    scripted.publishes(UNFIT[name], good.public_jwk)

    async def act(provider: ProviderKeys) -> list[Any]:
        return [await provider.find("first", algorithm) for algorithm in sorted(ALGORITHMS)] + [
            await provider.find("good", "ES256")
        ]

    *none, found = run(act)
    assert none == [None] * 3
    assert found is not None


def document(scripted: Scripted, **changes: Any) -> dict[str, Any]:
    """The discovery document, with changes."""
    return {"issuer": scripted.issuer, "jwks_uri": f"{scripted.issuer}/jwks"} | changes


ANOTHER_ISSUER = "discovery: another issuer than HEADWATER_OIDC_ISSUER"
NO_KEYS_URL = "discovery: no jwks_uri with https"
NO_JSON = "keys: no JSON object"
NONE_FITS = "keys: none fits HEADWATER_OIDC_ALGORITHMS"
TOO_MUCH = "keys: more than 262144 bytes"
JWKS = {"keys": [KEY.public_jwk]}

BROKEN: dict[str, tuple[Callable[[Scripted], None], str]] = {
    "another issuer": (lambda s: s.says(DISCOVERY, document(s, issuer="https://evil.example")), ANOTHER_ISSUER),
    "the issuer with a slash": (lambda s: s.says(DISCOVERY, document(s, issuer=s.issuer + "/")), ANOTHER_ISSUER),
    "no issuer": (lambda s: s.says(DISCOVERY, {"jwks_uri": f"{s.issuer}/jwks"}), ANOTHER_ISSUER),
    "keys over http": (lambda s: s.says(DISCOVERY, document(s, jwks_uri="http://keys.example/jwks")), NO_KEYS_URL),
    "keys in a file": (lambda s: s.says(DISCOVERY, document(s, jwks_uri="file:///etc/passwd")), NO_KEYS_URL),
    "keys nowhere": (lambda s: s.says(DISCOVERY, document(s, jwks_uri=None)), NO_KEYS_URL),
    "keys at a broken URL": (lambda s: s.says(DISCOVERY, document(s, jwks_uri="https://[")), NO_KEYS_URL),
    "keys at no port": (lambda s: s.says(DISCOVERY, document(s, jwks_uri="https://127.0.0.1:99999/")), NO_KEYS_URL),
    "keys at no host": (lambda s: s.says(DISCOVERY, document(s, jwks_uri="https://127.0.0.1\0/")), "InvalidURL"),
    "nobody there": (lambda s: s.says(DISCOVERY, document(s, jwks_uri="http://127.0.0.1:1/")), "ConnectError"),
    "an error": (lambda s: s.says(DISCOVERY, document(s), status=500), "discovery: status 500"),
    "keys with an error": (lambda s: s.says("/jwks", JWKS, status=503), "keys: status 503"),
    "a redirect": (lambda s: s.says("/jwks", JWKS, status=302, Location=f"{s.issuer}/to"), "keys: status 302"),
    "no JSON": (lambda s: s.says("/jwks", b"<html>"), NO_JSON),
    "a list": (lambda s: s.says("/jwks", [KEY.public_jwk]), NO_JSON),
    "nested": (lambda s: s.says("/jwks", b"[" * 200_000), NO_JSON),
    "packed": (lambda s: s.says("/jwks", gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"), NO_JSON),
    "no keys": (lambda s: s.says("/jwks", {"keys": []}), NONE_FITS),
    "keys that are no list": (lambda s: s.says("/jwks", {"keys": "first"}), NONE_FITS),
    "much": (lambda s: s.says("/jwks", JWKS | {"more": "m" * 300_000}), TOO_MUCH),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_no_keys_at_all(scripted: Scripted, run: Any, name: str) -> None:
    """503 with a time to come back; the log says why; no redirect is followed, and nothing is unpacked."""
    change, reason = BROKEN[name]
    change(scripted)
    with structlog.testing.capture_logs() as logged, pytest.raises(Unavailable) as caught:
        run(lambda provider: provider.find("first", "RS256"))
    assert (caught.value.code, caught.value.retry_after_seconds) == ("identity_provider_unavailable", 5)
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("identity_provider.keys_not_fetched", reason)]
    assert set(scripted.asked) <= {DISCOVERY, "/jwks"}


def test_a_path_in_the_issuer_is_kept(scripted: Scripted) -> None:
    """Discovery 1.0, section 4: what is appended goes behind it, and a slash at its end counts only in the issuer."""
    scripted.issuer += "/realms/acme/"
    scripted.says(f"/realms/acme{DISCOVERY}", document(scripted, jwks_uri=f"{scripted.issuer}keys"))
    scripted.says("/realms/acme/keys", {"keys": [KEY.public_jwk]})

    async def act() -> Any:
        provider = ProviderKeys(scripted.issuer, ALGORITHMS)
        found = await provider.find("first", "RS256")
        await provider.stop()
        return found

    assert isinstance(asyncio.run(act()), jwt.PyJWK)


def certificate(folder: Path) -> Path:
    """A self-signed certificate of localhost with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(clock.now() - timedelta(days=1))
        .not_valid_after(clock.now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_that_nobody_vouches_for_is_refused(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the authorities of the machine say otherwise, by OpenSSL's own variable."""
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    scripted.server.socket = context.wrap_socket(scripted.server.socket, server_side=True)
    scripted.issuer = f"https://localhost:{scripted.server.server_port}"
    scripted.publishes(KEY.public_jwk)

    async def found() -> Any:
        provider = ProviderKeys(scripted.issuer, ALGORITHMS)
        try:
            return await provider.find("first", "RS256")
        finally:
            await provider.stop()

    with pytest.raises(Unavailable):
        asyncio.run(found())
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert asyncio.run(found()) is not None


def test_many_unknown_keys_at_once_are_one_question(scripted: Scripted, run: Any, hands: ManualClock) -> None:
    """And there is no other until the pause is over."""

    async def act(provider: ProviderKeys) -> None:
        assert await provider.find("first", "RS256") is not None
        hands.seconds += provider_keys.PAUSE_SECONDS
        found = await asyncio.gather(*(provider.find(f"unknown {number}", "RS256") for number in range(100)))
        assert found == [None] * 100
        assert scripted.asked.count("/jwks") == 2
        hands.seconds += provider_keys.PAUSE_SECONDS - 0.1
        assert await provider.find("unknown", "RS256") is None
        assert scripted.asked.count("/jwks") == 2
        hands.seconds += 0.1
        assert await provider.find("unknown", "RS256") is None
        assert scripted.asked.count("/jwks") == 3

    run(act)


def test_there_is_one_question_at_a_time(scripted: Scripted, run: Any, hands: ManualClock) -> None:
    """A provider that takes longer than the pause is not asked beside it."""
    scripted.open.clear()

    async def act(provider: ProviderKeys) -> None:
        first = asyncio.create_task(provider.find("first", "RS256"))
        await asyncio.sleep(0.1)
        hands.seconds += provider_keys.PAUSE_SECONDS
        second = asyncio.create_task(provider.find("first", "RS256"))
        await asyncio.sleep(0.1)
        scripted.open.set()
        assert None not in await asyncio.gather(first, second)

    run(act)
    assert scripted.asked == [DISCOVERY, "/jwks"]


def test_a_new_key_is_found_at_the_first_question(scripted: Scripted, run: Any, hands: ManualClock) -> None:
    """The old one is gone with it, if the provider no longer publishes it."""
    new = make_key("second", "ES256")

    async def act(provider: ProviderKeys) -> None:
        assert await provider.find("first", "RS256") is not None
        scripted.publishes(new.public_jwk)
        hands.seconds += provider_keys.PAUSE_SECONDS
        assert await provider.find("second", "ES256") is not None
        assert await provider.find("first", "RS256") is None

    run(act)


def test_old_keys_are_asked_for_again_while_they_are_used(scripted: Scripted, run: Any, hands: ManualClock) -> None:
    """Nobody waits for a provider that takes its time, and a key that it withdrew is gone when it has spoken."""

    async def act(provider: ProviderKeys) -> None:
        assert await provider.find("first", "RS256") is not None
        hands.seconds += provider_keys.FRESH_SECONDS
        await provider.find("first", "RS256")
        assert scripted.asked.count("/jwks") == 1
        scripted.publishes(make_key("second").public_jwk)
        scripted.open.clear()
        hands.seconds += 1
        began = time.monotonic()
        assert await provider.find("first", "RS256") is not None
        assert time.monotonic() - began < 1
        scripted.open.set()
        async with asyncio.timeout(10):
            while await provider.find("first", "RS256") is not None:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)
        assert scripted.asked.count("/jwks") == 2

    run(act)


def test_keys_stay_fresh_while_nobody_comes(scripted: Scripted, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was withdrawn in the meantime is not good for one request more."""
    monkeypatch.setattr(provider_keys, "FRESH_SECONDS", 0.05)
    monkeypatch.setattr(provider_keys, "PAUSE_SECONDS", 0.0)

    async def act(provider: ProviderKeys) -> None:
        provider.start()
        async with asyncio.timeout(10):
            while scripted.asked.count("/jwks") < 3:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)

    run(act)


def test_known_keys_outlive_a_provider_that_is_away_for_a_day(scripted: Scripted, run: Any, hands: ManualClock) -> None:
    """Then there are none, until it is back."""

    async def act(provider: ProviderKeys) -> None:
        assert await provider.find("first", "RS256") is not None
        scripted.says(DISCOVERY, b"", status=502)
        hands.seconds += provider_keys.USABLE_SECONDS
        assert await provider.find("unknown", "RS256") is None
        assert scripted.asked[2:] == [DISCOVERY]
        assert await provider.find("first", "RS256") is not None
        hands.seconds += provider_keys.PAUSE_SECONDS
        with pytest.raises(Unavailable):
            await provider.find("first", "RS256")
        scripted.publishes(KEY.public_jwk)
        hands.seconds += provider_keys.PAUSE_SECONDS
        assert await provider.find("first", "RS256") is not None

    run(act)


def test_without_keys_a_provider_that_is_away_is_asked_now_and_then(
    scripted: Scripted, run: Any, hands: ManualClock
) -> None:
    """However many come: those in between are told at once."""
    scripted.says(DISCOVERY, b"", status=502)

    async def act(provider: ProviderKeys) -> None:
        for _ in range(3):
            for _ in range(10):
                with pytest.raises(Unavailable):
                    await provider.find("first", "RS256")
            hands.seconds += provider_keys.PAUSE_SECONDS

    run(act)
    assert scripted.asked == [DISCOVERY] * 3


def test_a_caller_who_leaves_does_not_end_the_question_of_others(scripted: Scripted, run: Any) -> None:
    """Whoever asked first may be the one who goes."""
    scripted.open.clear()

    async def act(provider: ProviderKeys) -> None:
        first, second = (asyncio.create_task(provider.find("first", "RS256")) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.wait([first])
        scripted.open.set()
        assert await second is not None

    run(act)
    assert scripted.asked.count("/jwks") == 1


def test_a_question_on_its_way_does_not_hold_up_the_end(scripted: Scripted, run: Any) -> None:
    """The API stops at once."""
    scripted.open.clear()
    began = time.monotonic()

    async def act(provider: ProviderKeys) -> None:
        provider.start()
        await asyncio.sleep(0.1)

    run(act)
    assert time.monotonic() - began < 2


def test_a_provider_that_takes_long_is_given_up(scripted: Scripted, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps every single read alive: the whole has a limit of its own."""
    monkeypatch.setattr(provider_keys, "_FETCH_SECONDS", 0.5)
    scripted.open.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        run(lambda provider: provider.find("first", "RS256"))
    assert time.monotonic() - began < 2


def test_no_proxy_of_the_environment_is_asked(scripted: Scripted, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor any other generic variable."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert run(lambda provider: provider.find("first", "RS256")) is not None
