"""A Google Cloud Storage on loopback: gcp-storage-emulator behind a gate that checks tokens, as Google's does.

The gate also is the token endpoint: it takes what a service account has signed (RFC 7523), and gives a token for it.
Listings have pages, which the emulator does not know. Everything lives in memory.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import create_server
from google.auth import exceptions, jwt

from headwater_cli.demo import serving
from headwater_cli.demo.serving import Answer, Request
from headwater_cli.ports import LOOPBACK

_TOKEN_SECONDS: Final = 3600
_ANSWER_SECONDS: Final = 30
_PASSED_ON: Final = frozenset({"content-type", "content-range", "x-goog-hash"})


@contextmanager
def serve(port: int, *, account: str, private_key: str, bucket: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve `files` in `bucket` to `account`; gives the origin, whose `/token` is the token endpoint.

    Raises OSError when the port is taken.
    """
    with create_server(LOOPBACK, 0, in_memory=True) as emulator:
        storage = emulator._storage
        # It would write everything down with every object.
        storage._write_config_to_file = lambda: None
        buckets.create_bucket(bucket, storage)
        for path, body in files.items():
            # Not over HTTP, where the emulator takes no empty one.
            described = objects._make_object_resource("", bucket, path, "application/octet-stream", str(len(body)))
            storage.create_file(bucket, path, body, objects._checksums(body, described))
        gate = _Gate(emulator._api._httpd.server_port, account, _public(private_key))
        with serving.serve(port, gate.answer) as origin:
            yield origin


def _public(private_key: str) -> str:
    key = serialization.load_pem_private_key(private_key.encode(), None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


class _Gate:
    """Between clients and the emulator."""

    def __init__(self, emulator_port: int, account: str, public_key: str) -> None:
        self._emulator_port = emulator_port
        self._account = account
        self._public_key = public_key
        self._tokens: set[str] = set()

    def answer(self, request: Request) -> Answer:
        if request.method == "POST":
            return self._grant(request) if request.path == "/token" else _refusal(404, "notFound")
        if request.bearer not in self._tokens:
            return _refusal(401, "authError")
        return self._fetched(request)

    def _grant(self, request: Request) -> Answer:
        audience = f"http://{request.headers.get('host', '')}/token"
        try:
            assertion = parse_qs(request.body.decode())["assertion"][0]
            claims = jwt.decode(assertion, certs=self._public_key, audience=audience)
        except (KeyError, ValueError, exceptions.GoogleAuthError):
            return serving.as_json({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        if claims.get("iss") != self._account:
            words = "Invalid grant: account not found"
            return serving.as_json({"error": "invalid_grant", "error_description": words}, 400)
        token = secrets.token_urlsafe(16)
        self._tokens.add(token)
        return serving.as_json({"access_token": token, "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"})

    def _fetched(self, request: Request) -> Answer:
        connection = HTTPConnection(LOOPBACK, self._emulator_port, timeout=_ANSWER_SECONDS)
        span = request.headers.get("range")
        try:
            connection.request("GET", request.target, headers={"Range": span} if span else {})
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() in _PASSED_ON}
            status, body = answer.status, answer.read()
        finally:
            connection.close()
        if status == 200 and request.path.endswith("/o"):
            return _page(body, request.query)
        return Answer(status, headers, body) if body or status < 400 else _refusal(status, "notFound")


def _refusal(status: int, reason: str) -> Answer:
    error = {"code": status, "message": reason, "errors": [{"domain": "global", "reason": reason, "message": reason}]}
    return serving.as_json({"error": error}, status)


def _page(body: bytes, query: Mapping[str, str]) -> Answer:
    """One page of the emulator's listing, which is always whole."""
    after, size = query.get("pageToken", ""), int(query.get("maxResults", "1000"))
    items = sorted(json.loads(body).get("items", ()), key=lambda item: item["name"].encode())
    items = [item for item in items if item["name"].encode() > after.encode()]
    page: dict[str, Any] = {"kind": "storage#objects", "items": items[:size]}
    if len(items) > size:
        page["nextPageToken"] = items[size - 1]["name"]
    return serving.as_json(page)
