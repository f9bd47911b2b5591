"""Where the next page of an API is, for each kind of pagination."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from headwater.connectors.api import (
    ApiConfig,
    CursorPagination,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
    Sized,
)
from headwater_worker.connectors import api_errors
from headwater_worker.connectors.api_client import Client

NEEDS_JSON: Final = (CursorPagination, NextUrlPagination)

_LONGEST_CURSOR: Final = 8_192
# Some APIs filter after they have cut a page. More than so many in a row lead nowhere.
_EMPTY_PAGES: Final = 100
# One link of RFC 8288, and its parameters; quotes may hold commas and semicolons.
_LINK: Final = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"[^"]*"|[^\s;,"]*))?)*)')
_REL: Final = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]*))', re.IGNORECASE)


@dataclass(frozen=True)
class Read:
    """A page that was read: the answer, how many records it had, their digest, what stands where paging looks."""

    response: httpx2.Response
    seen: int
    digest: str
    found: Any


def looks_at(config: ApiConfig) -> list[str] | None:
    """The members that lead to what says where the next page is, from the outside in; None if no body says it."""
    match config.pagination:
        case CursorPagination(cursor_path=path) | NextUrlPagination(path=path):
            return path.split(".")
        case _:
            return None


class Paging:
    """The way through the pages of one walk."""

    def __init__(self, config: ApiConfig, client: Client, since: str | None) -> None:
        self._client = client
        self._pagination = config.pagination
        self._number = config.pagination.first if isinstance(config.pagination, PagePagination) else 0
        self._empty_pages = 0
        self._circle = _Circle()
        self._last_digest = ""
        parameters: dict[str, str] = {}
        if config.incremental is not None and since is not None:
            parameters[config.incremental.parameter] = since
        if isinstance(config.pagination, Sized) and config.pagination.size_parameter is not None:
            parameters[config.pagination.size_parameter] = str(config.pagination.size)
        self._base = httpx2.URL(config.endpoint)
        if parameters:
            self._base = self._base.copy_merge_params(parameters)

    def current(self) -> httpx2.URL:
        """The URL of the first page; with numbered pages, of the one whose turn it is."""
        match self._pagination:
            case PagePagination(parameter=parameter):
                return self._base.copy_merge_params({parameter: str(self._number)})
            case OffsetPagination(parameter=parameter, limit_parameter=limit_parameter, limit=limit):
                return self._base.copy_merge_params({parameter: str(self._number), limit_parameter: str(limit)})
            case _:
                return self._base

    def following(self, read: Read) -> httpx2.URL | None:
        """The URL of the page behind `read`; None if that was the last. Raises `Permanent` if they run in circles."""
        match self._pagination:
            case PagePagination():
                return self._next_number(read, 1)
            case OffsetPagination():
                return self._next_number(read, read.seen)
            case CursorPagination(parameter=parameter):
                cursor = _text(read.found)
                if cursor is None:
                    return None
                self._go_on(read, cursor)
                return self._base.copy_merge_params({parameter: cursor})
            case NextUrlPagination():
                return self._next_link(read, _text(read.found))
            case LinkHeaderPagination():
                return self._next_link(read, _next_of(read.response.headers.get_list("link")))
            case _:
                return None

    def _next_number(self, read: Read, step: int) -> httpx2.URL | None:
        if not read.seen:
            return None
        # An API that does not know the parameter gives the same page forever.
        if read.digest == self._last_digest:
            raise api_errors.RUNS_IN_CIRCLES.error()
        self._last_digest = read.digest
        self._number += step
        return self.current()

    def _next_link(self, read: Read, text: str | None) -> httpx2.URL | None:
        if text is None:
            return None
        url = self._client.next_url(read.response.url, text)
        self._go_on(read, str(url))
        return url

    def _go_on(self, read: Read, mark: str) -> None:
        self._empty_pages = 0 if read.seen else self._empty_pages + 1
        if self._empty_pages > _EMPTY_PAGES:
            raise api_errors.RUNS_IN_CIRCLES.error()
        self._circle.step(mark)


class _Circle:
    """Finds out that a chain of marks comes round again, in the space of a few of them (R. Brent, 1980)."""

    def __init__(self) -> None:
        self._kept: set[bytes] = set()
        self._anchor = b""
        self._steps = 0

    def step(self, mark: str) -> None:
        """One further. Raises `Permanent` when this was seen before: soon for short circles, later for long ones."""
        digest = hashlib.blake2b(mark.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest == self._anchor or digest in self._kept:
            raise api_errors.RUNS_IN_CIRCLES.error()
        if len(self._kept) < 10_000:
            self._kept.add(digest)
        self._steps += 1
        if self._steps.bit_count() == 1:
            self._anchor = digest


def _text(value: Any) -> str | None:
    """A cursor or URL as it is sent; None if it says that nothing follows."""
    if value is None or value is False or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > _LONGEST_CURSOR:
        raise api_errors.BAD_LINK.error()
    return str(value)


def _next_of(headers: list[str]) -> str | None:
    """The target of the link with `rel="next"`."""
    for target, parameters in (found for header in headers for found in _LINK.findall(header)):
        relation = _REL.search(parameters)
        if relation and "next" in (relation[1] or relation[2] or "").lower().split():
            return str(target)
    return None
