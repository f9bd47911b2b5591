"""Azure's client, closed off: no environment, no redirects, no second host, no time of its own to wait.

Its own parser of listings makes an object tree of every property: 6,000 files a second. The page is read before that.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient

from headwater_worker.connectors import azure_errors, meaning, web
from headwater_worker.connectors.base import FileEntry
from headwater_worker.egress import Proxy

PAGE_KEYS: Final = 5000

_BLOCK_BYTES: Final = 8 * 1024 * 1024
_BACKOFF_SECONDS: Final = 0.5
_MONTHS: Final = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)  # noqa: SIM905
}
# RFC 1123, as in Fri, 20 Nov 2026 19:56:08 GMT.
_MOMENT: Final = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_DOT_SEGMENTS: Final = frozenset({".", ".."})
_LONGEST_SIZE: Final = 19  # digits; 10**18 bytes are an exabyte

# It writes a line for every request.
logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Settings:
    """How a client talks. `attempts` counts the first; `read_seconds` is the longest silence of the store."""

    account_url: str
    container: str
    proxy: Proxy
    read_seconds: float
    attempts: int


class _Page(Exception):
    """A page of a listing, carried past the client's own parser."""

    def __init__(self, entries: Sequence[FileEntry], marker: str | None) -> None:
        super().__init__()
        self.entries = entries
        self.marker = marker


class Client:
    """A container's client. Thread-safe once made. Raises `ValueError` for what the SDK can make no client of."""

    def __init__(self, credential: Any, settings: Settings) -> None:
        self._proxy = settings.proxy
        self._session = web.closed_off(requests.Session(), settings.proxy)
        self._container = ContainerClient(
            settings.account_url,
            settings.container,
            credential=credential,
            transport=RequestsTransport(
                session=self._session,
                session_owner=False,
                use_env_settings=False,
                connection_timeout=web.CONNECT_SECONDS,
                read_timeout=settings.read_seconds,
                connection_verify=self._session.verify,
            ),
            proxies=dict(self._session.proxies),
            permit_redirects=False,
            retry_total=settings.attempts - 1,
            retry_connect=0,
            initial_backoff=_BACKOFF_SECONDS,
            increment_base=2,
            max_single_get_size=_BLOCK_BYTES,
            max_chunk_get_size=_BLOCK_BYTES,
            raw_response_hook=self._look,
        )

    def close(self) -> None:
        """Let go of all connections."""
        self._container.close()
        self._session.close()

    def pages(self, prefix: str, keys: int) -> Iterator[Sequence[FileEntry]]:
        """Pages of a listing, in the order of names."""
        marker: str | None = None
        while True:
            page = self._page(prefix, keys, marker)
            yield page.entries
            if page.marker is None:
                return
            if page.marker == marker:
                raise meaning.ENDLESS.error()
            marker = page.marker

    def _page(self, prefix: str, keys: int, marker: str | None) -> _Page:
        listing = self._container.list_blobs(
            name_starts_with=prefix or None, results_per_page=keys, raw_response_hook=self._look_at_page
        )
        try:
            next(listing.by_page(continuation_token=marker))
        except _Page as page:
            return page
        raise azure_errors.not_azure()

    def _look(self, response: Any) -> None:
        """Raise what the proxy's own answer says: the client would ask it again and again."""
        if meaning.is_marked(response.http_response.headers) and (failure := meaning.of_proxy(self._proxy)):
            raise failure

    def _look_at_page(self, response: Any) -> None:
        self._look(response)
        _read_page(response)

    def download(self, path: str, size_bytes: int | None = None) -> Any:
        """A file's stored bytes, or its first `size_bytes`, as the SDK's downloader.

        It goes on with the same version, or fails. An empty file has no first bytes.
        """
        if not _DOT_SEGMENTS.isdisjoint(path.split("/")):
            # `requests` folds them: it would ask for another file, maybe in another container.
            raise azure_errors.unreadable_name()
        return self._container.get_blob_client(path).download_blob(
            offset=None if size_bytes is None else 0, length=size_bytes, max_concurrency=1, decompress=False
        )


def _read_page(response: Any) -> None:
    """Raise the page in an answer of 200, before the client parses it."""
    answer = response.http_response
    if answer.status_code != requests.codes.ok:
        return
    try:
        tree = ElementTree.fromstring(answer.body())  # noqa: S314 - expat bounds what entities grow to
    except (ElementTree.ParseError, ValueError):
        raise azure_errors.not_azure() from None
    if tree.tag != "EnumerationResults":
        raise azure_errors.not_azure()
    raise _Page([_entry(blob) for blob in tree.iterfind("Blobs/Blob")], tree.findtext("NextMarker") or None)


def _entry(blob: ElementTree.Element) -> FileEntry:
    properties = blob.find("Properties")
    if properties is None:
        properties = blob
    path = _name(blob.find("Name"))
    if properties.findtext("ResourceType") == "directory" and not path.endswith("/"):
        # With a hierarchical namespace directories are listed too, and nothing in their names shows it.
        path += "/"
    return FileEntry(
        path,
        _size(properties.findtext("Content-Length")),
        plain_etag(properties.findtext("Etag")),
        moment(properties.findtext("Last-Modified")),
    )


def _name(element: ElementTree.Element | None) -> str:
    if element is None or not element.text:
        raise azure_errors.not_azure()
    if element.get("Encoded") == "true":
        # Names with characters that XML cannot hold.
        return unquote_to_bytes(element.text).decode("utf-8", "surrogateescape")
    return element.text


def _size(text: str | None) -> int | None:
    return int(text) if text and len(text) < _LONGEST_SIZE and text.isascii() and text.isdigit() else None


def plain_etag(text: str | None) -> str | None:
    """An entity tag without its quotes: a listing has none, a header does."""
    return text.strip('"') or None if text else None


def moment(text: str | None) -> datetime | None:
    """A timestamp of a listing."""
    found = _MOMENT.fullmatch(text or "")
    if found is None or found[2] not in _MONTHS:
        return None
    day, month, year, hour, minute, second = found.groups()
    try:
        return datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
