"""Waiting for jobs: thousands of requests and event streams on one process, two connections in all.

One connection listens. A notice, a new waiter and a tick each second make the hub look at jobs: what it watches of all
of them in one query, then the changed ones whole, once however many wait for each. A lost notice costs a second, and
nobody holds a connection while waiting.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import psycopg

from headwater import db, log
from headwater.db import Row, Statement
from headwater.jobs import reading, statements
from headwater.settings import JobSettings
from headwater_api.jobs.rendering import JobView, mark

_TICK_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = 1.0
# Beyond this many, a request is answered at once and its client asks again.
_MOST_WATCHES: Final = 20_000
_MARKS_AT_ONCE: Final = 5_000
_VIEWS_AT_ONCE: Final = 200

# A peer that is silently gone is found within about 15 s; the tick covers for it meanwhile.
_LISTENER: Final[dict[str, Any]] = {
    **db.CONNECT,
    "autocommit": True,
    "application_name": "headwater-api-listener",
    "connect_timeout": 2,
}

_NOTHING: Final = object()

Fetch = Callable[[Statement], Awaitable[list[Row]]]

_log = log.get(__name__)


@dataclass(frozen=True)
class Seen:
    """One look at a job. `last_event` is the number of its newest event, 0 without any."""

    view: JobView
    last_event: int


@dataclass(eq=False)
class Watch:
    """One waiter on one job. `streams`: progress and events wake it too, not only a change of state."""

    streams: bool
    known: object
    seen: Seen | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def changed(self) -> Seen | None:
        """Wait for something other than what is known; None if the job is gone."""
        await self.woken.wait()
        self.woken.clear()
        return self.seen

    def tell(self, seen: Seen | None) -> None:
        """Wake the waiter if `seen` is news to it."""
        news = None if seen is None else _signature(seen) if self.streams else seen.view.mark
        if news != self.known:
            self.known, self.seen = news, seen
            self.woken.set()


def _signature(seen: Seen) -> object:
    row = seen.view.row
    return (
        seen.view.mark, seen.last_event, row["phase"], row["current"], row["total"], row["unit"], row["percent"],
        row["eta_seconds"], row["counters"], row["warnings"],
    )  # fmt: skip


@dataclass
class _Group:
    """The waiters on one job."""

    organization_id: UUID
    watches: set[Watch] = field(default_factory=set)

    def must_read(self, newest: str | None) -> bool:
        """Whether the job is to be read whole, now that its mark is `newest`."""
        return any(watch.streams or watch.known != newest for watch in self.watches)

    def tell(self, seen: Seen | None) -> None:
        for watch in self.watches:
            watch.tell(seen)


class Hub:
    """One for a process. `call` runs a call of an SQL function on the hot lane."""

    def __init__(self, database_url: str, call: Fetch, caps: JobSettings) -> None:
        self._database_url = database_url
        self._call = call
        self._caps = caps
        self._groups: dict[UUID, _Group] = {}
        self._count = 0
        self._stale: set[UUID] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Listen and look until `stop`."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look_always())]

    async def stop(self) -> None:
        """End; who still waits runs into its own time limit."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return self._count >= _MOST_WATCHES

    async def wait(self, view: JobView, *, until: Callable[[JobView], bool], seconds: float) -> JobView | None:
        """The first view of the job for which `until` holds; None when the time is over, or the job is gone."""
        with self.watching(view) as watch:
            if watch is None:
                return None
            try:
                async with asyncio.timeout(seconds):
                    while (seen := await watch.changed()) is not None:
                        if until(seen.view):
                            return seen.view
            except TimeoutError:
                return None
            return None

    @contextlib.contextmanager
    def watching(self, view: JobView, *, streams: bool = False) -> Iterator[Watch | None]:
        """A watch on the job, from what `view` knows of it; None when too many wait already.

        The hub looks at the job once more behind the registration: what changed since `view` was read wakes as well.
        """
        if self.full:
            yield None
            return
        watch = Watch(streams=streams, known=_NOTHING if streams else view.mark)
        group = self._groups.setdefault(view.id, _Group(view.organization_id))
        group.watches.add(watch)
        self._count += 1
        self._look_soon(view.id)
        try:
            yield watch
        finally:
            self._count -= 1
            group.watches.discard(watch)
            if not group.watches:
                self._groups.pop(view.id, None)

    def _look_soon(self, job_id: UUID) -> None:
        if job_id in self._groups:
            self._stale.add(job_id)
            self._wake.set()

    async def _look_always(self) -> None:
        loop = asyncio.get_running_loop()
        tick_at = loop.time() + _TICK_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(tick_at):
                    await self._wake.wait()
            self._wake.clear()
            if loop.time() >= tick_at:
                tick_at = loop.time() + _TICK_SECONDS
                job_ids = list(self._groups)
            else:
                job_ids = [job_id for job_id in self._stale if job_id in self._groups]
            self._stale.clear()
            try:
                await self._look_at(job_ids)
            except psycopg.Error as error:
                # Everybody is looked at again with the next tick.
                _log.warning("hub.database_unavailable", error=type(error).__name__)

    async def _look_at(self, job_ids: Sequence[UUID]) -> None:
        changed: list[UUID] = []
        for chunk in _chunks(job_ids, _MARKS_AT_ONCE):
            wanted = [(group.organization_id, job_id) for job_id in chunk if (group := self._groups.get(job_id))]
            newest = {row["id"]: mark(row) for row in await self._call(statements.marks(wanted))}
            changed += [
                job_id
                for job_id in chunk
                if (group := self._groups.get(job_id)) is not None and group.must_read(newest.get(job_id))
            ]
        for chunk in _chunks(changed, _VIEWS_AT_ONCE):
            wanted = [(group.organization_id, job_id) for job_id in chunk if (group := self._groups.get(job_id))]
            for row in await self._call(reading.views(wanted)):
                if group := self._groups.get(row["id"]):
                    group.tell(row["job"] and Seen(JobView(row["job"], self._caps), row["last_event"] or 0))

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except psycopg.Error as error:
                _log.warning("hub.listener_lost", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._database_url, **_LISTENER) as connection:
            await connection.execute(f"listen {statements.CHANNEL}")
            # What was said while nobody listened.
            for job_id in self._groups:
                self._look_soon(job_id)
            async for notice in connection.notifies():
                with contextlib.suppress(ValueError):
                    self._look_soon(UUID(notice.payload))


def _chunks(job_ids: Sequence[UUID], size: int) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(job_ids), size):
        yield job_ids[start : start + size]
