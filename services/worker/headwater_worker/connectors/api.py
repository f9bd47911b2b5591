"""HTTP APIs, through httpx2."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import ClassVar, Final, TypeVar, cast
from urllib.parse import urlsplit

import httpx2

from headwater.connectors.api import ApiConfig, NoPagination
from headwater.errors import ConnectorError, Permanent
from headwater_worker.connectors import api_answers, api_errors
from headwater_worker.connectors.api_client import Client
from headwater_worker.connectors.api_paging import NEEDS_JSON, Paging, Read, looks_at
from headwater_worker.connectors.base import (
    CheckWarning,
    FileEntry,
    Opening,
    Page,
    RecordConnector,
    Skipped,
    Step,
    Walk,
)
from headwater_worker.connectors.ladder import Origin, Way
from headwater_worker.sync import readers, records
from headwater_worker.sync.answers import Envelope
from headwater_worker.sync.formats.base import Refusal
from headwater_worker.sync.pages import Pages

T = TypeVar("T")

_READ_SECONDS: Final = 60.0
_ATTEMPTS: Final = 4
_PAGE_SECONDS: Final = 300.0
_PROBE_READ_SECONDS: Final = 6.0
_PROBE_PAGE_SECONDS: Final = 6.5
_NAMES: Final = {records.KEY: "record_key", records.CURSOR: "incremental.cursor_path"}
_PORTS: Final = {"http": 80, "https": 443}


class ApiConnector(RecordConnector):
    """One endpoint: one file in the catalogue, whose records are walked through page by page."""

    type: ClassVar[str] = "api"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._config = cast(ApiConfig, opening.config)
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        self._first: httpx2.Response | None = None
        self._way = Way(self._origin, tls=self._config.endpoint.startswith("https:"), policy=opening.policy)

    @property
    def walk(self) -> Walk:
        config = self._config
        incremental = config.incremental
        return Walk(
            identity={
                "endpoint": config.endpoint,
                "records_path": config.records_path,
                "record_key": config.record_key,
                "incremental": None if incremental is None else incremental.model_dump(),
            },
            key=_parts(config.record_key),
            cursor=None if incremental is None else _parts(incremental.cursor_path),
            cursor_format="text" if incremental is None else incremental.format,
        )

    def steps(self) -> Sequence[Step]:
        return (
            Step("config", self._check_config),
            *self._way.steps(),
            Step("authenticate", self._check_access),
            Step("target", self._check_endpoint),
            Step("list", self._check_list),
            Step("read", self._check_read),
        )

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        path = self._config.path
        if not path.startswith(prefix):
            return
        etag = None
        # An increment asks for something else: what is not read had better not be made.
        if self._config.incremental is None:
            # The answer is kept: a walk begins there.
            self._first = self._data_client.get(Paging(self._config, self._data_client, None).current())
            etag = self._etag(self._first)
        yield [FileEntry(path=path, size=None, etag=etag, modified_at=None)]

    def pages(self, *, since: str | None = None, named: str | None = None) -> Iterator[Page]:
        return self._walk_through(self._data_client, since, named)

    def misread(self, fault: Refusal) -> ConnectorError:
        return api_errors.of_fault(fault.code) or super().misread(fault)

    def uri(self, path: str) -> str:
        parts = urlsplit(self._config.endpoint)
        return f"{parts.scheme}://{parts.netloc}{path}"

    def close(self) -> None:
        self._way.close()
        with self._lock:
            if self._first is not None:
                self._first.close()
            for client in self._clients:
                client.close()

    # The walk.

    @functools.cached_property
    def _data_client(self) -> Client:
        return self._make_client(_READ_SECONDS, _ATTEMPTS)

    @functools.cached_property
    def _probe_client(self) -> Client:
        return self._make_client(_PROBE_READ_SECONDS, 1)

    def _make_client(self, read_seconds: float, attempts: int) -> Client:
        client = Client(
            self._config, self.opening.credentials, self.opening.proxy, read_seconds=read_seconds, attempts=attempts
        )
        with self._lock:
            self._clients.append(client)
        return client

    def _walk_through(self, client: Client, since: str | None, named: str | None) -> Iterator[Page]:
        paging = Paging(self._config, client, since)
        url: httpx2.URL | None = paging.current()
        while url is not None:
            response = self._take_first() if since is None else None
            if response is None:
                response = client.get(url)
            try:
                page = self._page(client, response, named)
                yield page
            finally:
                response.close()
            assert page.told is not None
            url = paging.following(Read(response, page.seen, page.told.digest, page.told.found))

    def _take_first(self) -> httpx2.Response | None:
        with self._lock:
            first, self._first = self._first, None
        return first

    def _page(
        self, client: Client, response: httpx2.Response, named: str | None, seconds: float = _PAGE_SECONDS
    ) -> Page:
        format_, etag = api_answers.format_of(response, named), self._etag(response)
        if format_.name == "json":
            return Page(format_, client.body(response, seconds), self._envelope(response), etag)
        if isinstance(self._config.pagination, NEEDS_JSON):
            raise api_errors.NEEDS_JSON.error()
        return Page(format_, client.body(response), None, etag)

    def _envelope(self, response: httpx2.Response) -> Envelope:
        return Envelope(
            path=_parts(self._config.records_path),
            single=self._is_single,
            charset=response.charset_encoding,
            wanted=looks_at(self._config),
            most_bytes=api_answers.LARGEST_JSON_BYTES,
        )

    @property
    def _is_single(self) -> bool:
        return isinstance(self._config.pagination, NoPagination)

    def _etag(self, response: httpx2.Response) -> str | None:
        """What changes with the records, if one answer holds them all and the API says it."""
        if not self._is_single or self._config.incremental is not None:
            return None
        return response.headers.get("etag") or response.headers.get("last-modified")

    # The ladder. One request tells of identity, endpoint and records: which step fails stands in its code.

    def _check_config(self) -> None:
        # Making the client proves that endpoint, headers and credentials can be sent.
        _ = self._probe_client
        # What takes answers apart is slow to start the first time: it does while the API is looked for.
        readers.nursery()

    def _origin(self) -> Origin:
        parts = urlsplit(self._config.endpoint)
        return Origin(parts.hostname or "", parts.port or _PORTS[parts.scheme])

    @functools.cached_property
    def _probe(self) -> httpx2.Response | ConnectorError:
        client = self._probe_client
        return _outcome(lambda: client.get(Paging(self._config, client, None).current()))

    def _check_access(self) -> None:
        if isinstance(self._probe, ConnectorError) and self._probe.code in api_errors.NO_ACCESS:
            raise self._probe

    def _check_endpoint(self) -> None:
        if isinstance(self._probe, ConnectorError):
            raise self._probe

    @functools.cached_property
    def _sample(self) -> Refusal | Sequence[str] | None:
        """What the first record of the first page lacks, as in `Records`. Raises `ConnectorError`."""
        response = self._probe
        assert not isinstance(response, ConnectorError)
        page = self._page(self._probe_client, response, None, _PROBE_PAGE_SECONDS)
        with closing(Pages(self)) as pages:
            return pages.first(page)

    def _check_list(self) -> CheckWarning | None:
        if self._sample is None:
            return CheckWarning(
                "empty_scope",
                "The connection works, but the API has no records.",
                "Check the query of `endpoint`, or come back when there are records.",
            )
        return None

    def _check_read(self) -> CheckWarning | Skipped | None:
        sample = self._sample
        if sample is None:
            return Skipped()
        if isinstance(sample, Refusal):
            raise Permanent(f"The first record cannot be read: {sample.message}", code=sample.code)
        if sample:
            return CheckWarning(
                "field_not_found",
                f"The first record has nothing where `{_NAMES[sample[0]]}` leads.",
                "Check the path: the names of the members that lead to the value, joined by dots.",
            )
        return None


def _outcome(call: Callable[[], T]) -> T | ConnectorError:
    try:
        return call()
    except ConnectorError as error:
        return error


def _parts(path: str | None) -> tuple[str, ...] | None:
    return None if path is None else tuple(path.split("."))
