"""Google Cloud Storage, through Google's own client."""

import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final, TypeVar, cast
from urllib.parse import urlsplit

import requests

from headwater import masking
from headwater.connectors.gcs import GOOGLE_TOKEN_URL, GcsConfig, service_account
from headwater.errors import ConnectorError, Permanent
from headwater_worker.connectors import gcs_errors, gcs_identity, gcs_session, object_store
from headwater_worker.connectors.base import FileEntry, OpenFile, Opening
from headwater_worker.connectors.gcs_identity import OwnIdentity
from headwater_worker.connectors.gcs_session import Client, Settings
from headwater_worker.connectors.ladder import Origin
from headwater_worker.connectors.object_store import ObjectStoreConnector
from headwater_worker.egress import second_line

T = TypeVar("T")

_DATA_READ_SECONDS: Final = 60.0
_DATA_ATTEMPTS: Final = 4
_PROBE_READ_SECONDS: Final = 6.0
_PROBE_ATTEMPTS: Final = 1
_MD5: Final = re.compile(r"(?:^|[,\s])md5=([A-Za-z0-9+/]+=*)")


class GcsConnector(ObjectStoreConnector):
    """A bucket, or what starts with a prefix in it."""

    type: ClassVar[str] = "gcs"

    def __init__(self, opening: Opening) -> None:
        self._config = cast(GcsConfig, opening.config)
        self._endpoint_url = self._config.endpoint_url or gcs_session.GOOGLE_URL
        self._lock = threading.RLock()
        super().__init__(opening, tls=self._endpoint_url.startswith("https:"))

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        scope = object_store.narrower(self._config.prefix, prefix)
        if scope is None:
            return
        pages = self._ask(lambda: self._data_client.pages(self._config.bucket, scope, gcs_session.PAGE_KEYS))
        while (page := self._ask(lambda: next(pages, None))) is not None:
            if page:
                yield page

    def open_file(self, path: str) -> OpenFile:
        answer = self._ask_for_file(self._data_client, path)
        return OpenFile(_opened(path, answer), answer.headers.get("content-type"), _Body(answer, self._ask))

    def uri(self, path: str) -> str:
        return f"gs://{self._config.bucket}/{path}"

    # The clients. Made on first use: a source that is refused before needs none of the SDK's memory.

    @functools.cached_property
    def _credentials(self) -> Any:
        if self._config.use_workload_identity:
            return self._own_identity()
        text = self.opening.credentials.get("service_account_json")
        if not text:
            # google-auth takes None for "look around for some": never let it come to that.
            raise Permanent("Credentials are missing.", code="missing_credentials", hint="Put `service_account_json`.")
        try:
            account = service_account(text)
        except ValueError as error:
            raise gcs_errors.unusable_key() from error
        self._closing.enter_context(masking.mask_for([account.private_key]))
        # The operator's endpoint is that of another store; Google's own takes tokens of Google's.
        own = self.opening.gcs_token_url if self._config.endpoint_url is not None else None
        return gcs_session.given(account, own or GOOGLE_TOKEN_URL, self.opening.proxy)

    def _own_identity(self) -> Any:
        self._identity_variables("a service account's key")
        self._closing.enter_context(second_line.own_endpoint(*gcs_identity.endpoint()))
        return OwnIdentity()

    @functools.cached_property
    def _data_client(self) -> Client:
        return self._make_client(_DATA_READ_SECONDS, _DATA_ATTEMPTS)

    @functools.cached_property
    def _probe_client(self) -> Client:
        return self._make_client(_PROBE_READ_SECONDS, _PROBE_ATTEMPTS)

    def _make_client(self, read_seconds: float, attempts: int) -> Client:
        with self._lock:
            settings = Settings(self._endpoint_url, self.opening.proxy, read_seconds, attempts)
            made = Client(self._credentials, settings)
            self._closing.callback(made.close)
            return made

    def _ask(self, call: Callable[[], T]) -> T:
        """What `call` gives; errors of Google's libraries become ours."""
        try:
            return call()
        except gcs_errors.FOREIGN as error:
            raise gcs_errors.translated(error, self.opening.proxy) from error

    def _ask_for_file(self, client: Client, path: str, span: str | None = None) -> requests.Response:
        try:
            return self._ask(lambda: client.read(self._config.bucket, path, span))
        except ConnectorError as error:
            raise gcs_errors.missing_file(error) from error

    # The ladder.

    def _check_config(self) -> None:
        _ = self._probe_client

    def _origin(self) -> Origin:
        parts = urlsplit(self._endpoint_url)
        return Origin(parts.hostname or "", object_store.port_of(parts.scheme, parts.port))

    def _prove_identity(self) -> None:
        self._ask(self._probe_client.prove)

    def _first_page(self) -> Sequence[FileEntry]:
        pages = self._ask(
            lambda: self._probe_client.pages(self._config.bucket, self._config.prefix, object_store.PROBE_KEYS)
        )
        return self._ask(lambda: next(pages, ()))

    def _read_sample(self, sample: FileEntry) -> None:
        span = f"bytes=0-{object_store.SAMPLE_BYTES - 1}" if sample.size else None
        with self._ask_for_file(self._probe_client, sample.path, span) as answer:
            # Not all of it, should a store know no ranges.
            self._ask(lambda: answer.raw.read(object_store.SAMPLE_BYTES, decode_content=False))


class _Body:
    """The stored bytes of an answer, with errors of ours."""

    def __init__(self, answer: requests.Response, ask: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._answer = answer
        self._ask = ask

    def read(self, size: int = -1, /) -> bytes:
        return self._ask(lambda: self._answer.raw.read(None if size < 0 else size, decode_content=False))

    def close(self) -> None:
        self._answer.close()


def _opened(path: str, answer: requests.Response) -> FileEntry:
    headers = answer.headers
    md5 = _MD5.search(headers.get("x-goog-hash", ""))
    return FileEntry(
        path,
        _number(headers.get("x-goog-stored-content-length") or headers.get("content-length")),
        gcs_session.content_tag(md5[1] if md5 else None, headers.get("x-goog-generation")),
        _moment(headers),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _moment(headers: Mapping[str, str]) -> datetime | None:
    try:
        return parsedate_to_datetime(headers.get("last-modified", ""))
    except ValueError:
        return None
