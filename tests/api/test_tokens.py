"""Tokens that somebody made up, changed or kept too long: each is a 401 that shows nothing of it."""

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater_api import provider_keys

from .oidc_provider import AUDIENCE, Provider, SigningKey, make_key

SUBJECT = "subject-of-a-member"
LEFT_OUT: Any = object()


@dataclass
class Canary:
    """A server of the attacker's with a key of theirs; `asked` is every path that somebody wanted of it."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def canary_of(key: SigningKey) -> Iterator[Canary]:
    """A canary that publishes `key` at every path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            canary.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": [key.public_jwk]}).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        canary = Canary(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield canary
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Scene:
    """A provider, an API that trusts it, a member who signs in there, and an attacker with a key and a server."""

    api: Any
    provider: Provider
    key: SigningKey
    second_key: SigningKey
    attacker: SigningKey
    canary: Canary
    organization_id: str

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token of the member claims, but for `changes`."""
        now = int(time.time())
        claims = {
            "iss": self.provider.issuer,
            "aud": AUDIENCE,
            "sub": SUBJECT,
            "iat": now,
            "exp": now + 300,
            "headwater_organization": self.organization_id,
        } | changes
        return {name: value for name, value in claims.items() if value is not LEFT_OUT}

    def me(self, token: str | bytes) -> httpx2.Response:
        """`GET /me` with a token."""
        bearer = b"Bearer " + (token if isinstance(token, bytes) else token.encode())
        return httpx2.get(f"{self.api.url}/me", headers={b"Authorization": bearer}, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def scene(database: str, start_api: Callable[..., Any], organization: CreatedOrganization) -> Iterator[Scene]:
    """The scene."""
    key, second_key, attacker = make_key("first"), make_key("second", "ES256"), make_key("first")
    provider = Provider()
    provider.start(key, second_key)
    api = start_api(HEADWATER_OIDC_ISSUER=provider.issuer, HEADWATER_OIDC_AUDIENCE=AUDIENCE)
    organization_id = ids.encode("org", organization.organization_id)
    with canary_of(attacker) as canary:
        yield Scene(api, provider, key, second_key, attacker, canary, organization_id)
    provider.stop()


@pytest.fixture(autouse=True)
def member(scene: Scene, organization: CreatedOrganization, connection: Connection) -> None:
    """Somebody who signed in before: a token that is taken for theirs would be a 200."""
    connection.execute(
        """
        insert into member (id, organization_id, email, name, role, issuer, subject)
        values (%s, %s, 'target@example.com', 'Target', 'admin', %s, %s) on conflict do nothing
        """,
        (ids.new(), organization.organization_id, scene.provider.issuer, SUBJECT),
    )


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """The first two parts of a token."""
    return ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))


def signed_raw(key: SigningKey, payload: bytes, **header: Any) -> str:
    """A token with a payload that is whatever it is."""
    return jwt.PyJWS().encode(payload, key.private, key.algorithm, headers={"kid": key.id, **header})


def with_mac(scene: Scene, secret: bytes, algorithm: str = "HS256") -> str:
    """A token whose MAC is made with what everybody can read."""
    text = unsigned({"alg": algorithm, "typ": "JWT", "kid": scene.key.id}, scene.claims())
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), digest))}"


def pem(key: SigningKey, form: serialization.PublicFormat, encoding: serialization.Encoding) -> bytes:
    """The public half."""
    return key.private.public_key().public_bytes(encoding, form)


def encrypted(scene: Scene) -> str:
    """A JWE for the provider's public key (RSA-OAEP-256, A256GCM) around a good token."""
    header = encoded(json.dumps({"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": scene.key.id, "cty": "JWT"}).encode())
    content_key, nonce = AESGCM.generate_key(256), os.urandom(12)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    public: Any = scene.key.private.public_key()
    sealed = AESGCM(content_key).encrypt(nonce, scene.key.sign(scene.claims()).encode(), header.encode())
    parts = (public.encrypt(content_key, oaep), nonce, sealed[:-16], sealed[-16:])
    return ".".join([header, *map(encoded, parts)])


def tampered(scene: Scene) -> str:
    """Another's token with the subject of the member."""
    head, _, signature = scene.key.sign(scene.claims(sub="somebody")).split(".")
    return f"{head}.{encoded(json.dumps(scene.claims()).encode())}.{signature}"


def unlike(token: str) -> str:
    """The token with other bits at the end of its signature that mean the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


_SUBJECT_PUBLIC_KEY = (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.PEM)
_PKCS1 = (serialization.PublicFormat.PKCS1, serialization.Encoding.PEM)
_DER = (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.DER)

FORGED: dict[str, Callable[[Scene], str]] = {
    "none": lambda s: unsigned({"alg": "none", "typ": "JWT", "kid": s.key.id}, s.claims()) + ".",
    "none with a signature": lambda s: unsigned({"alg": "none", "kid": s.key.id}, s.claims()) + ".AAAA",
    "None": lambda s: unsigned({"alg": "None", "kid": s.key.id}, s.claims()) + ".AAAA",
    "nOnE without kid": lambda s: unsigned({"alg": "nOnE"}, s.claims()) + ".AAAA",
    "no alg": lambda s: unsigned({"typ": "JWT", "kid": s.key.id}, s.claims()) + ".AAAA",
    "alg is a list": lambda s: unsigned({"alg": ["RS256"], "kid": s.key.id}, s.claims()) + ".AAAA",
    "alg is null": lambda s: unsigned({"alg": None, "kid": s.key.id}, s.claims()) + ".AAAA",
    "HS256 with the PEM": lambda s: with_mac(s, pem(s.key, *_SUBJECT_PUBLIC_KEY)),
    "HS256 with the PEM without its last line end": lambda s: with_mac(s, pem(s.key, *_SUBJECT_PUBLIC_KEY).strip()),
    "HS256 with the PKCS1 PEM": lambda s: with_mac(s, pem(s.key, *_PKCS1)),
    "HS384 with the DER": lambda s: with_mac(s, pem(s.key, *_DER), "HS384"),
    "HS256 with the JWK": lambda s: with_mac(s, json.dumps(s.key.public_jwk).encode()),
    "HS512 with the modulus": lambda s: with_mac(s, s.key.public_jwk["n"].encode(), "HS512"),
    "HS256 with nothing": lambda s: with_mac(s, b""),
    "another key with the right kid": lambda s: s.attacker.sign(s.claims()),
    "another key of the provider": lambda s: s.second_key.sign(s.claims(), kid=s.key.id),
    "an RSA key for ES256": lambda s: s.second_key.sign(s.claims(), kid=s.key.id, alg="ES256"),
    "an EC key for RS256": lambda s: s.key.sign(s.claims(), kid=s.second_key.id),
    "an algorithm that is not allowed": lambda s: jwt.encode(s.claims(), s.key.private, "PS256", {"kid": s.key.id}),
    "RS512 where the key says RS256": lambda s: jwt.encode(s.claims(), s.key.private, "RS512", {"kid": s.key.id}),
    "no kid": lambda s: jwt.encode(s.claims(), s.key.private, "RS256"),
    "jwk": lambda s: s.attacker.sign(s.claims(), jwk=s.attacker.public_jwk),
    "jwk without kid": lambda s: jwt.encode(s.claims(), s.attacker.private, "RS256", {"jwk": s.attacker.public_jwk}),
    "jku": lambda s: s.attacker.sign(s.claims(), jku=f"{s.canary.url}/jwks"),
    "jku with an unknown kid": lambda s: s.attacker.sign(s.claims(), kid="theirs", jku=f"{s.canary.url}/jwks"),
    "x5u": lambda s: s.attacker.sign(s.claims(), kid="theirs", x5u=f"{s.canary.url}/certificate"),
    "x5c": lambda s: s.attacker.sign(s.claims(), kid="theirs", x5c=["MIIB"], x5t="AAAA"),
    "a kid that is a URL": lambda s: s.attacker.sign(s.claims(), kid=f"{s.canary.url}/jwks"),
    "a kid that climbs": lambda s: s.attacker.sign(s.claims(), kid="../../../../proc/self/environ"),
    "a kid that is a path": lambda s: s.attacker.sign(s.claims(), kid="/dev/null"),
    "a kid with SQL": lambda s: s.attacker.sign(s.claims(), kid="first' union select 'secret' --"),
    "a kid with U+0000": lambda s: s.attacker.sign(s.claims(), kid="first\0"),
    "a kid that is half a character": lambda s: s.attacker.sign(s.claims(), kid="\ud800"),
    "a kid without end": lambda s: s.attacker.sign(s.claims(), kid="k" * 5_000),
    "an empty kid": lambda s: s.attacker.sign(s.claims(), kid=""),
    "a kid that is a number": lambda s: raw_header(s, {"alg": "RS256", "kid": 1}),
    "a kid that is a list": lambda s: raw_header(s, {"alg": "RS256", "kid": ["first"]}),
    "crit": lambda s: s.key.sign(s.claims(), crit=["exp"], exp=1),
    "crit that PyJWT knows": lambda s: raw_header(s, {"alg": "RS256", "kid": s.key.id, "crit": ["b64"], "b64": True}),
    "an empty crit": lambda s: raw_header(s, {"alg": "RS256", "kid": s.key.id, "crit": []}),
    "b64 false": lambda s: raw_header(s, {"alg": "RS256", "kid": s.key.id, "b64": False}),
    "a logout token": lambda s: s.key.sign(s.claims(), typ="logout+jwt"),
    "a typ that is a list": lambda s: raw_header(s, {"alg": "RS256", "kid": s.key.id, "typ": ["JWT"]}),
    "a header with a name twice": lambda s: raw_header(s, '{"alg":"none","kid":"first","alg":"RS256"}'),
    "a header that is a list": lambda s: raw_header(s, ["RS256"]),
    "a header that is no JSON": lambda s: raw_header(s, "alg=RS256"),
    "another audience": lambda s: s.key.sign(s.claims(aud="https://other.example")),
    "the start of the audience": lambda s: s.key.sign(s.claims(aud=AUDIENCE[:-1])),
    "an empty audience": lambda s: s.key.sign(s.claims(aud=[])),
    "an audience that is no text": lambda s: s.key.sign(s.claims(aud=[AUDIENCE, 7])),
    "no audience": lambda s: s.key.sign(s.claims(aud=LEFT_OUT)),
    "another issuer": lambda s: s.key.sign(s.claims(iss="https://evil.example")),
    "the issuer with a slash": lambda s: s.key.sign(s.claims(iss=s.provider.issuer + "/")),
    "no issuer": lambda s: s.key.sign(s.claims(iss=LEFT_OUT)),
    "an issuer that is a list": lambda s: raw_payload(s, s.claims(iss=[s.provider.issuer])),
    "no subject": lambda s: s.key.sign(s.claims(sub=LEFT_OUT)),
    "an empty subject": lambda s: s.key.sign(s.claims(sub="")),
    "a subject that is a number": lambda s: raw_payload(s, s.claims(sub=7)),
    "a subject with U+0000": lambda s: s.key.sign(s.claims(sub=f"{SUBJECT}\0")),
    "a subject with half a character": lambda s: s.key.sign(s.claims(sub="\udfff")),
    "a subject without end": lambda s: s.key.sign(s.claims(sub="s" * 256)),
    "no exp": lambda s: s.key.sign(s.claims(exp=LEFT_OUT)),
    "exp null": lambda s: s.key.sign(s.claims(exp=None)),
    "exp as text": lambda s: s.key.sign(s.claims(exp=str(int(time.time()) + 300))),
    "exp true": lambda s: s.key.sign(s.claims(exp=True)),
    "exp as a list": lambda s: s.key.sign(s.claims(exp=[int(time.time()) + 300])),
    "a huge exp": lambda s: s.key.sign(s.claims(exp=10**18)),
    "an exp without end": lambda s: s.key.sign(s.claims(exp=10**4_000)),
    "an exp beyond all numbers": lambda s: raw_payload(s, json.dumps(s.claims(exp=7)).replace(": 7", ": 1e999")),
    "exp Infinity": lambda s: raw_payload(s, json.dumps(s.claims(exp=float("inf")))),
    "exp NaN": lambda s: raw_payload(s, json.dumps(s.claims(exp=float("nan")))),
    "a negative exp": lambda s: s.key.sign(s.claims(exp=-1)),
    "not valid yet": lambda s: s.key.sign(s.claims(nbf=int(time.time()) + 120)),
    "nbf as text": lambda s: s.key.sign(s.claims(nbf="0")),
    "a huge nbf": lambda s: s.key.sign(s.claims(nbf=10**30)),
    "made tomorrow": lambda s: s.key.sign(s.claims(iat=int(time.time()) + 120)),
    "iat as text": lambda s: s.key.sign(s.claims(iat="0")),
    "a payload with a name twice": lambda s: raw_payload(
        s, json.dumps(s.claims(sub="somebody"))[:-1] + f', "sub": "{SUBJECT}"}}'
    ),
    "a payload with a name twice further in": lambda s: raw_payload(
        s, json.dumps(s.claims())[:-1] + ', "a": {"b": 1, "b": 2}}'
    ),
    "a payload that is no JSON": lambda s: raw_payload(s, "sub=target"),
    "a payload that is text": lambda s: raw_payload(s, '"target"'),
    "a payload that is a list": lambda s: raw_payload(s, [s.claims()]),
    "a payload in UTF-16": lambda s: signed_raw(s.key, json.dumps(s.claims()).encode("utf-16")),
    "a payload that is no UTF-8": lambda s: signed_raw(s.key, b'{"sub":"\xff"}'),
    "a payload that is deep": lambda s: raw_payload(s, '{"a":' + "[" * 2_000 + "]" * 2_000 + "}"),
    "an organization that is no id": lambda s: s.key.sign(s.claims(headwater_organization="acme")),
    "an organization's id with U+0000": lambda s: s.key.sign(s.claims(headwater_organization="org_" + "\0" * 26)),
    "an id of another kind": lambda s: s.key.sign(
        s.claims(headwater_organization=s.organization_id.replace("org_", "user_"))
    ),
    "no organization": lambda s: s.key.sign(s.claims(headwater_organization=LEFT_OUT)),
    "a changed subject": tampered,
    "encrypted": encrypted,
    "half a signature": lambda s: s.key.sign(s.claims())[:-170],
    "a signature without its last byte": lambda s: s.key.sign(s.claims())[:-2],
    "no signature": lambda s: s.key.sign(s.claims()).rpartition(".")[0] + ".",
    "an empty ECDSA signature": lambda s: unsigned({"alg": "ES256", "kid": "second"}, s.claims()) + ".AA",
    "an ECDSA signature of zeros": lambda s: unsigned({"alg": "ES256", "kid": "second"}, s.claims()) + "." + "A" * 86,
    "a signature that is spelled otherwise": lambda s: unlike(s.key.sign(s.claims())),
    "padding": lambda s: s.key.sign(s.claims()) + "==",
    "two parts": lambda s: s.key.sign(s.claims()).rpartition(".")[0],
    "four parts": lambda s: s.key.sign(s.claims()) + ".AAAA",
    "a space in it": lambda s: s.key.sign(s.claims()).replace(".", " .", 1),
    "dots": lambda _: "..",
    "9 KiB": lambda s: s.key.sign(s.claims(more="m" * 6_600)),
    "30 KB of dots": lambda _: "." * 30_000,
}  # fmt: skip


def raw_header(scene: Scene, header: Any) -> str:
    """A good token of the member's, rightly signed, with a header that is whatever it is."""
    text = header if isinstance(header, str) else json.dumps(header)
    signing_input = f"{encoded(text.encode())}.{encoded(json.dumps(scene.claims()).encode())}"
    private: Any = scene.key.private
    return f"{signing_input}.{encoded(private.sign(signing_input.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def raw_payload(scene: Scene, payload: Any) -> str:
    """Rightly signed, with a payload that is whatever it is."""
    return signed_raw(scene.key, (payload if isinstance(payload, str) else json.dumps(payload)).encode())


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(scene: Scene, name: str) -> None:
    """401 `token_invalid`; the answer shows no part of it, and nobody asked the attacker's server for anything."""
    token = FORGED[name](scene)
    answer = scene.me(token)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid"), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [part for part in token.split(".") if len(part) > 8 and part in answer.text] == []
    for shown in (SUBJECT, "theirs", "evil", "environ", "union", scene.canary.url):
        assert shown not in answer.text
    assert scene.canary.asked == []


@pytest.mark.parametrize("ago", [1, 29, 31, 86_400, 10**9])
def test_an_expired_token_is_told_as_such(scene: Scene, ago: int) -> None:
    """401 `token_expired`: for an end there is no leeway."""
    answer = scene.me(scene.key.sign(scene.claims(exp=int(time.time()) - ago)))
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


@pytest.mark.parametrize(
    "bad",
    [b"\xff\xfe", "ключ.ключ.ключ".encode(), "\u202egnp.exe.a".encode(), b"a.b.c\xa0", b"%00.%00.%00", b"\xc3\x28.a.a"],
)
def test_garbage_is_refused(scene: Scene, bad: bytes) -> None:
    """401, whatever bytes a header can carry."""
    answer = scene.me(bad)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


def test_a_good_token_is_accepted(scene: Scene) -> None:
    """Or the refusals above would prove nothing: of both keys, with what RFC 7519 allows."""
    now = int(time.time())
    for token in (
        scene.key.sign(scene.claims()),
        scene.second_key.sign(scene.claims()),
        scene.key.sign(scene.claims(), typ="at+jwt"),
        scene.key.sign(scene.claims(), typ="application/AT+JWT"),
        scene.key.sign(scene.claims(), typ=""),
        scene.key.sign(scene.claims(aud=["https://other.example", AUDIENCE])),
        scene.key.sign(scene.claims(iat=LEFT_OUT)),
        scene.key.sign(scene.claims(iat=now + 20, nbf=now + 20)),
        scene.key.sign(scene.claims(exp=now + 300.5)),
        scene.key.sign(scene.claims(more="m" * 5_000)),
        raw_header(scene, {"alg": "RS256", "kid": scene.key.id}),
    ):
        answer = scene.me(token)
        assert answer.status_code == 200, answer.text
        assert answer.json()["member"]["email"] == "target@example.com"


def test_a_remembered_token_lets_no_other_in(scene: Scene) -> None:
    """The same but for its signature, right after the good one."""
    good = scene.key.sign(scene.claims(jti="remembered"))
    assert scene.me(good).status_code == 200
    head, body, signature = good.split(".")
    for forged in (f"{head}.{body}.{signature[::-1]}", f"{head}.{body}.", good[:-4], f"{head}.{body}.{signature}AAAA"):
        assert scene.me(forged).status_code == 401
    assert scene.me(good).status_code == 200


def test_an_address_that_cannot_be_kept_is_none(scene: Scene, connection: Connection) -> None:
    """It takes no invitation, and it is no fault of ours: 401, never 500."""
    for email in ("target\0@example.com", "\ud800@example.com", "e" * 255, "", 7, ["target@example.com"]):
        token = scene.key.sign(scene.claims(sub=ids.new().hex, email=email, email_verified=True))
        answer = scene.me(token)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_a_member"), email


def test_a_flood_of_unknown_keys_asks_the_provider_now_and_then(scene: Scene) -> None:
    """Two hundred at once, each with a key of its own, then as many again: all are refused, known keys stay good."""
    before, began = scene.provider.requests(), time.monotonic()
    tokens = [scene.attacker.sign(scene.claims(), kid=f"unknown-{number}") for number in range(400)]
    refused: list[int] = []

    def send(some: list[str]) -> None:
        with httpx2.Client(trust_env=False, timeout=30) as client:
            for token in some:
                answer = client.get(f"{scene.api.url}/me", headers={"Authorization": f"Bearer {token}"})
                refused.append(answer.status_code)

    threads = [threading.Thread(target=send, args=(tokens[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == [401] * 400
    allowed = 1 + (time.monotonic() - began) / provider_keys.PAUSE_SECONDS
    after = scene.provider.requests()
    for path in ("/jwks", "/.well-known/openid-configuration"):
        assert after[path] - before[path] <= allowed
    assert scene.me(scene.key.sign(scene.claims(jti="another"))).status_code == 200
