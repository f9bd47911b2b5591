"""Opening what is to be read: small files a few ahead of the reader, in threads; large ones when it comes to them."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from headwater.errors import ConnectorError, Transient
from headwater_worker.connectors.base import FileConnector, FileEntry
from headwater_worker.sync.formats.base import READ_BYTES, ByteStream
from headwater_worker.sync.formats.choice import Format

_Result = TypeVar("_Result")

SMALL_BYTES: Final = 8 * 1024 * 1024
_AHEAD: Final = 4
# Plain files need no fetching, but the queue must not grow with them.
_QUEUE: Final = 256
_TRIES: Final = 3
_LONGEST_PAUSE_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Wanted:
    """One file to read, as it was listed. `is_new`: nothing of it was ever imported.

    `found`: what the reading that is live found out about it.
    """

    entry: FileEntry
    is_new: bool
    format: Format
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_small(self) -> bool:
        """Whether it is fetched whole, ahead of its turn."""
        return self.entry.size is not None and self.entry.size <= SMALL_BYTES


@dataclass(frozen=True)
class Fetched:
    """A small file in memory, as it was when it was read."""

    entry: FileEntry
    body: bytes


Ready = tuple[Wanted, Fetched | ConnectorError | None]
"""A file whose turn it is; None: it is opened now, or needs no opening."""


def in_turn(wanted: Iterator[Wanted], connector: FileConnector, interrupt: Callable[[], None]) -> Iterator[Ready]:
    """The files in their order. What fetching raised comes as a value. `interrupt` is called while waiting."""
    pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch")
    queue: deque[tuple[Wanted, Future[Fetched | ConnectorError | None] | None]] = deque()
    try:
        for item in wanted:
            fetch = item.is_small and not item.format.is_plain
            queue.append((item, pool.submit(_fetch, connector, item) if fetch else None))
            while len(queue) >= _QUEUE or sum(future is not None for _, future in queue) > _AHEAD:
                yield _next(queue, interrupt)
        while queue:
            yield _next(queue, interrupt)
    finally:
        # A read that hangs ends with its own timeout; nobody waits for it here.
        pool.shutdown(wait=False, cancel_futures=True)


def open_patiently(connector: FileConnector, path: str) -> tuple[str | None, ByteStream]:
    """Open a file, trying again twice: its etag and its bytes. Raises `ConnectorError`."""
    opened = _patiently(lambda: connector.open_file(path))
    return opened.entry.etag, opened.stream


def _next(
    queue: deque[tuple[Wanted, Future[Fetched | ConnectorError | None] | None]], interrupt: Callable[[], None]
) -> Ready:
    item, future = queue.popleft()
    if future is None:
        return item, None
    while not wait([future], timeout=_WAIT_SECONDS).done:
        interrupt()
    return item, future.result()


def _fetch(connector: FileConnector, wanted: Wanted) -> Fetched | ConnectorError | None:
    """The whole file; None if it has grown beyond what is fetched ahead."""
    try:
        return _patiently(lambda: _read_whole(connector, wanted.entry.path))
    except ConnectorError as error:
        return error


def _read_whole(connector: FileConnector, path: str) -> Fetched | None:
    opened = connector.open_file(path)
    with closing(opened.stream) as stream:
        pieces, size = [], 0
        while piece := stream.read(READ_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > SMALL_BYTES:
                return None
        return Fetched(opened.entry, b"".join(pieces))


def _patiently(attempt: Callable[[], _Result]) -> _Result:
    for tried in range(1, _TRIES):
        try:
            return attempt()
        except Transient as error:
            time.sleep(min(error.retry_after_seconds or 0.1 * 4**tried, _LONGEST_PAUSE_SECONDS))
    return attempt()
