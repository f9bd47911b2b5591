"""What attackers send, over a raw socket to the server as it is deployed: an answer, the right one, and a problem."""

import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from serving import Api

from headwater.access.organizations import CreatedOrganization

HOST = "Host: api"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
KEY = "KEY"
"""Stands for the field with a good key."""
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Api]) -> Api:
    """One for all: what it was sent before changes nothing."""
    return start_api(
        HEADWATER_CORS_ORIGINS="https://app.example.com",
        HEADWATER_HSTS_SECONDS="3600",
        HEADWATER_TRUSTED_PROXIES="127.0.0.1",
    )


def ask(api: Api, request: bytes) -> tuple[int, dict[str, str], bytes, int]:
    """Status, fields and body of the first answer, and how many came until the server closed."""
    base = urlsplit(api.url)
    with socket.create_connection((base.hostname or "", base.port or 0), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), fields, body[: int(fields.get("content-length", 0))], answer.count(b"HTTP/1.1 2")


def head(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request as it stands, behind which the connection is closed."""
    return "\r\n".join((line, "Connection: close", *fields, "", "")).encode("latin-1") + body


def get(path: str, *fields: str) -> bytes:
    return head(f"GET {path} HTTP/1.1", HOST, *fields)


def post(body: bytes, *fields: str) -> bytes:
    return framed(body, f"Content-Length: {len(body)}", *fields)


def framed(body: bytes, *fields: str) -> bytes:
    return head("POST /api/v1/projects HTTP/1.1", HOST, KEY, *fields, body=body)


HIDDEN = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: api\r\n\r\n"
"""An end of a body, and a request behind it that only one of two readers sees."""

MALFORMED = {
    "no host": head("GET /healthz HTTP/1.1"),
    "two hosts": get("/healthz", "Host: evil"),
    "a host that is none": head("GET /healthz HTTP/1.1", "Host: a b/<x>"),
    "two keys": get("/api/v1/me", KEY, "Authorization: Bearer hw_x"),
    "two content types": post(b"{}", JSON, "Content-Type: text/plain"),
    "two idempotency keys": post(b"{}", JSON, "Idempotency-Key: a", "Idempotency-Key: b"),
    "two encodings": post(b"{}", JSON, "Content-Encoding: identity", "Content-Encoding: gzip"),
    "two preferences": post(b"{}", JSON, "Prefer: wait=0", "Prefer: wait=25"),
    "the same length twice": framed(b"{}", JSON, "Content-Length: 2", "Content-Length: 2"),
    "two lengths": framed(b"{} ", JSON, "Content-Length: 2", "Content-Length: 3"),
    "a list of lengths": framed(b"{}", JSON, "Content-Length: 2, 2"),
    "a length below nothing": framed(b"{}", JSON, "Content-Length: -2"),
    "a length with a sign": framed(b"{}", JSON, "Content-Length: +2"),
    "a length in hex": framed(b"{}", JSON, "Content-Length: 0x2"),
    "a length beyond 64 bits": framed(b"{}", JSON, "Content-Length: " + "9" * 30),
    "a length and chunks": framed(HIDDEN, JSON, "Content-Length: 5", CHUNKED),
    "chunks and a length": framed(HIDDEN, JSON, CHUNKED, "Content-Length: 5"),
    "chunked twice": framed(HIDDEN, JSON, CHUNKED, CHUNKED),
    "chunked and not": framed(HIDDEN, JSON, CHUNKED, "Transfer-Encoding: identity"),
    "nearly chunked": framed(HIDDEN, JSON, "Transfer-Encoding: xchunked"),
    "chunked behind gzip": framed(HIDDEN, JSON, "Transfer-Encoding: gzip, chunked"),
    "chunked before gzip": framed(HIDDEN, JSON, "Transfer-Encoding: chunked, gzip"),
    "a blank before the colon": framed(HIDDEN, JSON, "Transfer-Encoding : chunked"),
    "a tab in the coding": framed(HIDDEN, JSON, "Transfer-Encoding: \x0bchunked"),
    "chunks in HTTP/1.0": head("POST /api/v1/projects HTTP/1.0", HOST, KEY, JSON, CHUNKED, body=HIDDEN),
    "a chunk of no size": framed(b"zz\r\n{}\r\n0\r\n\r\n", JSON, CHUNKED),
    "a chunk below nothing": framed(b"-2\r\n{}\r\n0\r\n\r\n", JSON, CHUNKED),
    "a chunk beyond 64 bits": framed(b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n", JSON, CHUNKED),
    "a chunk without an end": framed(b"2\r\n{}X0\r\n\r\n", JSON, CHUNKED),
    "chunks in lines of Unix": framed(b"2\n{}\n0\n\n", JSON, CHUNKED),
    "lines of Unix": b"GET /healthz HTTP/1.1\nHost: api\n\n",
    "lines of old Macs": b"GET /healthz HTTP/1.1\rHost: api\r\r",
    "a folded field": get("/healthz", "X-A: b\r\n c"),
    "a bare CR": get("/healthz", "X-A: a\rb"),
    "a NUL in a field": get("/healthz", "X-A: a\0b"),
    "a field without a colon": get("/healthz", "X-A"),
    "a field without a name": get("/healthz", ": x"),
    "a blank in a name": get("/healthz", "X A: x"),
    "bytes in the path": get("/api/v1/m\xe9"),
    "a method that is none": head("BREW /healthz HTTP/1.1", HOST),
    "CONNECT": head("CONNECT evil:443 HTTP/1.1", HOST),
    "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", [pytest.param(request, id=name) for name, request in MALFORMED.items()])
def test_what_can_be_read_in_two_ways_is_refused(
    api: Api, organization: CreatedOrganization, request_bytes: bytes
) -> None:
    """One 400, the connection closed, and nothing that stands behind it is answered."""
    status, fields, body, granted = ask(api, with_key(request_bytes, organization))
    assert (status, json.loads(body)["code"], granted) == (400, "malformed_request", 0)
    assert fields["connection"] == "close"
    expect_problem(fields, body)


ANSWERS: dict[str, tuple[bytes, int, str]] = {
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/2 as a word": (head("GET /healthz HTTP/2.0", HOST), 505, "http_version_not_supported"),
    "TRACE": (head("TRACE /api/v1/me HTTP/1.1", HOST, KEY), 405, "method_not_allowed"),
    "OPTIONS of everything": (head("OPTIONS * HTTP/1.1", HOST), 404, "not_found"),
    "another method in a field": (
        head("POST /api/v1/me HTTP/1.1", HOST, KEY, "X-HTTP-Method-Override: GET", "Content-Length: 0"),
        405, "method_not_allowed",
    ),
    "another path in a field": (get("/nothing", "X-Original-URL: /healthz"), 404, "not_found"),
    "nothing there": (get("/nothing"), 404, "not_found"),
    "an encoded slash": (get("/api/v1%2Fme", KEY), 404, "not_found"),
    "an encoded backslash": (get("/api/v1/projects/%5c", KEY), 404, "not_found"),
    "dots": (get("/api/v1/projects/../me", KEY), 404, "not_found"),
    "encoded dots": (get("/api/v1/projects/%2e%2e/me", KEY), 404, "not_found"),
    "a doubled slash": (get("//api/v1/me", KEY), 404, "not_found"),
    "NUL": (get("/api/v1/projects/%00", KEY), 404, "not_found"),
    "no UTF-8": (get("/api/v1/projects/%ff%fe", KEY), 404, "not_found"),
    "a percent that escapes nothing": (get("/api/v1/projects/%zz", KEY), 404, "not_found"),
    "a long path": (get("/" + "a" * 60_000), 404, "not_found"),
    "a path that is too long": (get("/" + "a" * 70_000), 431, "head_too_large"),
    "a long query": (get("/api/v1/projects?cursor=" + "a" * 50_000, KEY), 400, "invalid_request"),
    "a long key": (get("/api/v1/me", "Authorization: Bearer " + "a" * 30_000), 401, "api_key_malformed"),
    "a length beyond the limit": (framed(b"{}", JSON, "Content-Length: 9223372036854775807"), 413, "payload_too_large"),
    "no media type": (post(b"{}"), 415, "unsupported_media_type"),
    "text": (post(b"{}", "Content-Type: text/plain"), 415, "unsupported_media_type"),
    "a form": (post(b"a=b", "Content-Type: application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
    "gzip": (post(b"\x1f\x8b", JSON, "Content-Encoding: gzip"), 415, "unsupported_media_type"),
    "UTF-7": (post(b'{"name": "+AGE-"}', f"{JSON}; charset=utf-7"), 415, "unsupported_media_type"),
    "two charsets": (post(b"{}", f"{JSON}; charset=utf-8; charset=utf-16"), 415, "unsupported_media_type"),
    "UTF-16": (post('{"name": "x"}'.encode("utf-16"), JSON), 400, "invalid_request"),
    "Latin-1": (post(b'{"name": "\xe9"}', JSON), 400, "invalid_request"),
    "a member twice": (post(b'{"name": "a", "name": "b"}', JSON), 400, "invalid_request"),
    "depth": (post(b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON), 400, "invalid_request"),
    "NaN": (post(b'{"name": NaN}', JSON), 400, "invalid_request"),
    "beyond floats": (post(b'{"name": 1e999}', JSON), 400, "invalid_request"),
    "5,000 digits": (post(b'{"name": ' + b"9" * 5000 + b"}", JSON), 400, "invalid_request"),
    "half a surrogate": (post(b'{"name": "\\ud800"}', JSON), 400, "invalid_request"),
    "more than JSON": (post(b'{"name": "a"} x', JSON), 400, "invalid_request"),
    "__proto__": (post(b'{"name": "a", "__proto__": {}}', JSON), 400, "invalid_request"),
    "a page of no origin of ours": (
        head("OPTIONS /api/v1/projects HTTP/1.1", HOST, "Origin: https://evil", "Access-Control-Request-Method: POST"),
        405, "method_not_allowed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"), [pytest.param(*case, id=name) for name, case in ANSWERS.items()]
)
def test_what_is_odd_gets_a_problem(
    api: Api, organization: CreatedOrganization, request_bytes: bytes, status: int, code: str
) -> None:
    """With the status that says what it was, whoever found it out."""
    found, fields, body, _granted = ask(api, with_key(request_bytes, organization))
    assert (found, json.loads(body)["code"]) == (status, code)
    expect_problem(fields, body)


def with_key(request: bytes, organization: CreatedOrganization) -> bytes:
    """The request with its key in it."""
    return request.replace(b"\r\nKEY\r\n", f"\r\nAuthorization: Bearer {organization.api_key}\r\n".encode())


def expect_problem(fields: dict[str, str], body: bytes) -> None:
    """A problem with every header that an answer has."""
    problem: dict[str, Any] = json.loads(body)
    assert fields["content-type"] == "application/problem+json"
    assert fields["x-request-id"] == problem["request_id"]
    assert fields.items() >= SECURITY.items()
    assert "frame-ancestors 'none'" in fields["content-security-policy"]
    assert "server" not in fields
    assert "access-control-allow-origin" not in fields


OURS = "Origin: https://app.example.com"


def test_where_no_origin_is_named_there_is_no_cors(
    start_api: Callable[..., Api], organization: CreatedOrganization
) -> None:
    """Neither for any page nor for a preflight."""
    api = start_api(HEADWATER_CORS_ORIGINS="")
    preflight = head("OPTIONS /api/v1/projects HTTP/1.1", HOST, OURS, "Access-Control-Request-Method: POST")
    for request, status in ((get("/api/v1/me", KEY, OURS), 200), (preflight, 405)):
        found, fields, _body, _granted = ask(api, with_key(request, organization))
        assert found == status
        assert not [name for name in fields if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("request_bytes", "status", "allowed"),
    [
        (get("/api/v1/me", KEY, OURS), 200, "https://app.example.com"),
        (get("/api/v1/me", OURS), 401, "https://app.example.com"),
        (
            head("OPTIONS /api/v1/projects HTTP/1.1", HOST, OURS, "Access-Control-Request-Method: POST",
                 "Access-Control-Request-Headers: authorization, content-type"),
            200, "https://app.example.com",
        ),
        (get("/api/v1/me", KEY, "Origin: https://evil.example.com"), 200, None),
        (get("/api/v1/me", KEY, "Origin: https://app.example.com.evil"), 200, None),
        (get("/api/v1/me", KEY, "Origin: HTTPS://app.example.com"), 200, None),
        (get("/api/v1/me", KEY, "Origin: null"), 200, None),
    ],
    ids=["ours", "ours without a key", "preflight", "another", "one that looks like ours", "capitals", "null"],
)  # fmt: skip
def test_only_pages_of_named_origins_may_read(
    api: Api, organization: CreatedOrganization, request_bytes: bytes, status: int, allowed: str | None
) -> None:
    """Exactly those; never with the browser's own credentials."""
    found, fields, _body, _granted = ask(api, with_key(request_bytes, organization))
    assert (found, fields.get("access-control-allow-origin")) == (status, allowed)
    assert "access-control-allow-credentials" not in fields
    assert fields.items() >= SECURITY.items()


@pytest.mark.parametrize(("proto", "said"), [("https", "max-age=3600"), ("http", None)])
def test_browsers_are_told_to_come_over_tls_where_they_do(api: Api, proto: str, said: str | None) -> None:
    """Said over plain HTTP it means nothing."""
    _status, fields, _body, _granted = ask(api, get("/healthz", f"X-Forwarded-Proto: {proto}"))
    assert fields.get("strict-transport-security") == said


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_of_the_reference_load_only_what_draws_them(api: Api, path: str) -> None:
    """And stand in no frame."""
    status, fields, body, _granted = ask(api, get(path))
    policy = dict(part.strip().partition(" ")[::2] for part in fields["content-security-policy"].split(";"))
    assert (status, policy["default-src"], policy["frame-ancestors"]) == (200, "'none'", "'none'")
    loaded = [
        word for word in body.decode().split('"') if word.startswith("https://") and word.endswith((".js", ".css"))
    ]
    assert loaded
    assert all(url.startswith("https://cdn.jsdelivr.net/") for url in loaded)


def test_no_answer_depends_on_the_host_that_a_request_claims(api: Api, organization: CreatedOrganization) -> None:
    """Links and `Location` are paths."""
    request = head(
        "POST http://evil.example.com/api/v1/projects HTTP/1.1", "Host: evil.example.com", KEY, JSON,
        "X-Forwarded-Host: evil.example.com", "Forwarded: host=evil.example.com", "Content-Length: 16",
        body=b'{"name": "host"}',
    )  # fmt: skip
    status, fields, body, _granted = ask(api, with_key(request, organization))
    assert (status, fields["location"][:17]) == (201, "/api/v1/projects/")
    assert b"evil" not in body
    assert not any("evil" in value for value in fields.values())


def test_what_is_unusual_and_plain_is_served(api: Api) -> None:
    """HTTP/1.0 without a host, many fields, a body where none belongs, a wish that is not heeded."""
    requests = (
        head("GET /healthz HTTP/1.0"),
        get("/healthz", *(f"X-{number}: a" for number in range(3000))),
        get("/healthz", "Content-Length: 5") + b"hello",
        get("/healthz", "Upgrade: h2c", "Range: bytes=0-1,0-1", "Expect: magic"),
    )
    assert [ask(api, request)[0] for request in requests] == [200] * 4
