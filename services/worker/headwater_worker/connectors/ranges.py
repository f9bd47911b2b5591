"""Listing a large store in ranges of its keys, several at once, in the order of the keys.

With every request's time on the road, one after another lists a million keys in a minute however fast both ends are.
Where to cut is known from what was there before; what is there now is listed whatever the cuts were.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

from headwater_worker.connectors.base import FileEntry

Pages: TypeAlias = Iterator[Sequence[FileEntry]]

AT_ONCE: Final = 16


class NoRanges(Exception):
    """The store does not begin where it was asked to."""


def in_order(bounds: Sequence[str], pages_behind: Callable[[str], Pages]) -> Pages:
    """The pages of all ranges in their order. `bounds`: where ranges end, in byte order; the last one has no end.

    `pages_behind` gives the pages of all keys behind a key ("": all), in byte order. It is called on `AT_ONCE` threads,
    and its results are kept until it is their turn: a range should be of some ten pages.
    """
    stopped = threading.Event()
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="list")
    begun: deque[Future[list[Sequence[FileEntry]]]] = deque()
    ranges = zip(("", *bounds), (*bounds, None), strict=True)
    last = ""
    try:
        for after, through in ranges:
            begun.append(pool.submit(_listed, pages_behind, after, through, stopped))
            if len(begun) == AT_ONCE:
                for page in begun.popleft().result():
                    yield page
                    last = page[-1].path
        while begun:
            for page in begun.popleft().result():
                yield page
                last = page[-1].path
    except NoRanges:
        yield from _behind(last, pages_behind(""))
    finally:
        stopped.set()
        # A request that hangs ends when the connector is closed; nobody waits for it here.
        pool.shutdown(wait=False, cancel_futures=True)


def _listed(
    pages_behind: Callable[[str], Pages], after: str, through: str | None, stopped: threading.Event
) -> list[Sequence[FileEntry]]:
    """The pages of the range (`after`, `through`], cut where it ends. Raises `NoRanges`."""
    pages: list[Sequence[FileEntry]] = []
    for page in pages_behind(after):
        if _bytes(page[0].path) <= _bytes(after) and after:
            raise NoRanges
        if through is not None and _bytes(page[-1].path) >= _bytes(through):
            within = [entry for entry in page if _bytes(entry.path) <= _bytes(through)]
            return [*pages, within] if within else pages
        pages.append(page)
        if stopped.is_set():
            break
    return pages


def _behind(last: str, pages: Pages) -> Pages:
    for page in pages:
        if left := [entry for entry in page if _bytes(entry.path) > _bytes(last)]:
            yield left


def _bytes(path: str) -> bytes:
    # Keys that are no UTF-8 have lone surrogates, whose order as text is another one.
    return path.encode("utf-8", "surrogateescape")
