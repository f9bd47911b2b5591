"""Google's client, closed off: it signs with what it is given, and asks nobody but the token endpoint and the store.

google-auth's own service account credentials look up a "regional access boundary" behind every first request, at a
host that nobody configured and with a token; those here only get tokens. The store's client gets a session of ours, as
otherwise the environment's proxies would win, and an endpoint, as otherwise STORAGE_EMULATOR_HOST would.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

import google.auth.exceptions
import requests
from google.auth import credentials as google_credentials
from google.auth import crypt, jwt
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage

from headwater import clock
from headwater.connectors.gcs import ServiceAccount
from headwater_worker.connectors import gcs_errors, web
from headwater_worker.connectors.base import FileEntry
from headwater_worker.egress import Proxy

GOOGLE_URL: Final = "https://storage.googleapis.com"
PAGE_KEYS: Final = 1000

SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_SECONDS: Final = 3600
_FIELDS: Final = "items(name,size,md5Hash,generation,updated),nextPageToken"

# Otherwise the store's client asks for the bucket itself, in a thread of its own: a right that readers need not have.
os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"


@dataclass(frozen=True)
class Settings:
    """How a client talks. `attempts` counts the first; `read_seconds` is the longest silence of the store."""

    endpoint_url: str
    proxy: Proxy
    read_seconds: float
    attempts: int

    @property
    def timeout(self) -> tuple[float, float]:
        """For `requests`: seconds to connect, seconds of silence."""
        return (web.CONNECT_SECONDS, self.read_seconds)


class ServiceAccountToken(google_credentials.Credentials):
    """Tokens for a service account (RFC 7523), asked for at `token_url` alone."""

    def __init__(self, account: ServiceAccount, token_url: str, proxy: Proxy) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._email = account.client_email
        self._signer = _signer(account)
        self._token_url = token_url
        self._proxy = proxy

    def refresh(self, request: Any) -> None:
        """Get a token. Raises `ConnectorError`."""
        body = urlencode({"grant_type": _GRANT, "assertion": self._assertion()}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            answer = request(url=self._token_url, method="POST", body=body, headers=headers)
        except google.auth.exceptions.TransportError as error:
            raise web.translated(error, self._proxy) from error
        self.token, seconds = gcs_errors.token_of(answer.status, answer.headers, answer.data, self._proxy)
        # google-auth compares with a time that knows no zone.
        self.expiry = (clock.now() + timedelta(seconds=seconds)).replace(tzinfo=None)

    def _assertion(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self._email,
            "scope": SCOPE,
            "aud": self._token_url,
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
        }
        assertion: bytes = jwt.encode(self._signer, claims)
        return assertion.decode()


def _signer(account: ServiceAccount) -> Any:
    try:
        return crypt.RSASigner.from_string(account.private_key, account.private_key_id)
    except (ValueError, TypeError) as error:
        raise gcs_errors.unusable_key() from error


def given(account: ServiceAccount, token_url: str, proxy: Proxy) -> Any:
    """Credentials that the customer gave. Raises `Permanent` when the key cannot sign."""
    return ServiceAccountToken(account, token_url, proxy)


class Client:
    """The store's client and the session beneath it. Thread-safe once made."""

    def __init__(self, credentials: Any, settings: Settings) -> None:
        self._settings = settings
        self._tokens = Request(web.closed_off(requests.Session(), settings.proxy))
        self._credentials = credentials
        self._session = web.closed_off(
            AuthorizedSession(credentials, refresh_timeout=settings.read_seconds, auth_request=self._tokens),
            settings.proxy,
            attempts=settings.attempts,
        )
        self._store = storage.Client(
            project=None,
            credentials=credentials,
            _http=self._session,
            client_options={"api_endpoint": settings.endpoint_url},
        )

    def close(self) -> None:
        """Let go of all connections."""
        self._session.close()
        self._tokens.session.close()

    def prove(self) -> None:
        """Get a token, unless there is one. Raises `ConnectorError` and what google-auth raises."""
        if not self._credentials.valid:
            self._credentials.refresh(self._timed_tokens)

    def _timed_tokens(self, **request: Any) -> Any:
        return self._tokens(**{"timeout": self._settings.read_seconds, **request})

    def pages(self, bucket: str, prefix: str, keys: int) -> Iterator[Sequence[FileEntry]]:
        """Pages of a listing, with the fields alone that a file needs."""
        listing = self._store.list_blobs(
            bucket,
            prefix=prefix or None,
            fields=_FIELDS,
            page_size=keys,
            timeout=self._settings.timeout,
            retry=None,
        )
        told: str | None = None
        for page in listing.pages:
            found = [_entry(blob) for blob in page]
            if listing.next_page_token is not None and listing.next_page_token == told:
                raise gcs_errors.endless()
            told = listing.next_page_token
            yield found

    def read(self, bucket: str, path: str, span: str | None = None) -> requests.Response:
        """The answer with a file's bytes as they are stored, not read yet. The caller closes it.

        `span` is a Range. Raises what the store's client raises for an answer that is an error.
        """
        headers = {"Accept-Encoding": "gzip"} | ({"Range": span} if span else {})
        answer = self._session.get(
            f"{self._settings.endpoint_url}/download/storage/v1/b/{bucket}/o/{quote(path, safe='')}",
            params={"alt": "media"},
            headers=headers,
            timeout=self._settings.timeout,
            stream=True,
        )
        if not answer.ok:
            with answer:
                raise gcs_errors.answered(answer)
        return answer


def _entry(blob: Any) -> FileEntry:
    return FileEntry(blob.name, blob.size, content_tag(blob.md5_hash, blob.generation), blob.updated)


def content_tag(md5: str | None, generation: int | str | None) -> str | None:
    """What changes when the content does. Composed objects have no MD5; a generation is new with every write."""
    return md5 or (None if generation is None else str(generation))
