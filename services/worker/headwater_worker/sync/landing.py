"""From judged records to rows in Postgres, in short fenced transactions.

A chunk gathers what one transaction will hold: the rows of part of a large file, or of many small ones. While Postgres
takes a chunk in, on a thread of its own, the next one is gathered. That thread is the only user of the job's connection
as long as the `Landing` is open; everybody else asks through `ask`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeVar

import psycopg

from headwater import db
from headwater.catalogue import loads
from headwater.catalogue.loads import Landed
from headwater.db import Connection, Row, Statement
from headwater_worker.context import JobContext
from headwater_worker.sync import showing, storable
from headwater_worker.sync.formats.base import Refusal, excerpt
from headwater_worker.sync.judging import HEAD, Judged
from headwater_worker.sync.loading import KEPT_REJECTS, Loading
from headwater_worker.sync.plan import Plan

_CHUNK_BYTES: Final = 8 * 1024 * 1024
_CHUNK_RECORDS: Final = 50_000
_CHUNK_LOADS: Final = 2_000
_CHUNK_SECONDS: Final = 2.0
_SHOW_SECONDS: Final = 4.0
_WAIT_SECONDS: Final = 0.5
_RESERVED: Final = 500
_BEGIN: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_END: Final = b"\xff\xff"
_COPY_ITEMS: Final = "copy item (load_id, record_number, data) from stdin (format binary)"
_COPY_REJECTS: Final = """
    copy reject (load_id, number, line, record_number, code, pointer, message, excerpt) from stdin (format binary)
"""
_REJECT_TYPES: Final = ("int8", "int8", "int8", "int8", "text", "text", "text", "text")
# What Postgres says to a record that it cannot keep.
_REFUSED: Final = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex)
_REFUSED_BY_POSTGRES: Final = "Postgres cannot keep this record."
# Their numbers must not meet those that the reader gives meanwhile.
_LATE_NUMBERS: Final = 1_000_000_000

_Answer = TypeVar("_Answer")
_Reject = tuple[int, int, int | None, int | None, str, str | None, str, str | None]


@dataclass
class _Chunk:
    """What one transaction will hold."""

    parts: list[Judged] = field(default_factory=list)
    rejects: list[_Reject] = field(default_factory=list)
    loads: dict[int, Loading] = field(default_factory=dict)
    count: int = 0
    size: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        return (
            self.size >= _CHUNK_BYTES
            or self.count + len(self.rejects) >= _CHUNK_RECORDS
            or len(self.loads) >= _CHUNK_LOADS
            or time.monotonic() - self.began >= _CHUNK_SECONDS
        )


@dataclass(frozen=True)
class _Late:
    """A record that only Postgres refused."""

    load_id: int
    record_number: int
    refusal: Refusal

    @classmethod
    def of(cls, row: bytes, line: int | None, loads: Mapping[int, Loading]) -> Self:
        _, _, load_id, _, number, *_ = HEAD.unpack_from(row)
        refusal = Refusal(line, storable.CODE, _REFUSED_BY_POSTGRES, excerpt(row[HEAD.size :]))
        return cls(load_id=load_id, record_number=number, refusal=loads[load_id].placed(refusal, number))


class Landing:
    """Takes blocks of records and brings them into Postgres. `parsed` and `rejected` are sums over the job.

    `doomed`: nothing will be shown any more, so records are only judged and rejects kept.
    """

    def __init__(self, context: JobContext, plan: Plan, *, parsed: int = 0, rejected: int = 0) -> None:
        self.parsed = parsed
        self.rejected = rejected
        self.landed = 0
        self.doomed = False
        self._context = context
        self._plan = plan
        self._chunk = _Chunk()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="land")
        self._writing: tuple[_Chunk, Future[list[_Late]]] | None = None
        self._numbers: list[int] = []
        self._shown_at = time.monotonic()
        self._to_show = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What was handed over lands, whatever ended the reading; the connection is nobody else's before.
        self._thread.shutdown(wait=True)

    def ask(self, statement: Statement) -> list[Row]:
        """The rows of a statement, run in turn with what lands."""
        return self._run(lambda: db.run(self._context.connection, statement).fetchall())

    def begin(
        self, path: str, *, etag: str | None, was: Literal["new", "changed"], first: int = 0, first_reject: int = 0
    ) -> Loading:
        """A new load, in Postgres with what is added to it first.

        Its records and rejects are counted from behind `first` and `first_reject`.
        """
        if not self._numbers:
            self._numbers = [row["id"] for row in reversed(self.ask(loads.reserve(_RESERVED)))]
        return Loading(self._numbers.pop(), path, etag, was, first=first, first_reject=first_reject)

    def add(self, loading: Loading, judged: Judged) -> None:
        """The good rows land, the refusals become rejects of the load."""
        self._chunk.loads[loading.id] = loading
        if judged.member is not None:
            loading.enter(judged.member)
        keep = not self.doomed
        for number, refusal in judged.refusals:
            self._refuse(loading, refusal, number)
        loading.parsed += judged.parsed
        loading.valid += judged.good
        self.parsed += judged.parsed
        if keep and judged.good:
            self._chunk.parts.append(judged)
            self._chunk.count += judged.good
            self._chunk.size += len(judged.rows)
            loading.landed += judged.good
        self._context.progress.count(parsed=judged.parsed, valid=judged.good, rejected=len(judged.refusals))
        for fault in judged.faults:
            self.refuse_file(loading, fault)
        if self._chunk.is_full:
            self.flush()

    def refuse_file(self, loading: Loading, refusal: Refusal) -> None:
        """The file, the rest of it, or the member of it that was entered last, could not be read."""
        self._chunk.loads[loading.id] = loading
        self._refuse(loading, refusal, None)
        self._context.progress.count(rejected=1)

    def finish(self, loading: Loading) -> None:
        """All of the file has been added."""
        loading.finished = True
        self._chunk.loads[loading.id] = loading
        self._to_show = True
        if self._chunk.is_full:
            self.flush()

    def flush(self) -> None:
        """Hand the chunk over; waits until the one before has landed."""
        self.settle()
        chunk, self._chunk = self._chunk, _Chunk()
        if not chunk.loads:
            return
        show = self._is_time_to_show()
        landed = [loading.so_far() for loading in chunk.loads.values()]
        self._writing = chunk, self._thread.submit(self._write, chunk, landed, show)

    def settle(self) -> None:
        """Wait until what was handed over has landed."""
        if self._writing is None:
            return
        (chunk, future), self._writing = self._writing, None
        late = self._wait(future)
        for record in late:
            loading = chunk.loads[record.load_id]
            loading.valid -= 1
            loading.landed -= 1
            self._note(loading, record.refusal, record.record_number)
        self.landed += chunk.count - len(late)
        self._context.progress.count(landed=chunk.count - len(late), valid=-len(late), rejected=len(late))

    def _run(self, work: Callable[[], _Answer]) -> _Answer:
        return self._wait(self._thread.submit(work))

    def _wait(self, future: Future[_Answer]) -> _Answer:
        while not wait([future], timeout=_WAIT_SECONDS).done:
            self._context.checkpoint()
        return future.result()

    def _is_time_to_show(self) -> bool:
        if self._plan.at_once or not self._to_show or time.monotonic() - self._shown_at < _SHOW_SECONDS:
            return False
        self._shown_at, self._to_show = time.monotonic(), False
        return True

    def _refuse(self, loading: Loading, refusal: Refusal, record_number: int | None) -> None:
        refusal = loading.placed(refusal, record_number)
        self._note(loading, refusal, record_number)
        if loading.refused <= KEPT_REJECTS:
            number = loading.first_reject + loading.refused
            self._chunk.rejects.append(_reject(loading.id, number, record_number, refusal))
        else:
            self._context.progress.warn(
                "rejects_truncated", "A file has more than 100,000 rejects; the rest of them are only counted."
            )

    def _note(self, loading: Loading, refusal: Refusal, record_number: int | None) -> None:
        self.rejected += 1
        self._context.progress.refuse(refusal.code, sample=loading.refuse(refusal, record_number))
        if self._plan.limit is not None and self._plan.limit.is_hopeless(rejected=self.rejected):
            self.doomed = True

    # From here on, on the thread.

    def _write(self, chunk: _Chunk, landed: list[Landed], show: bool) -> list[_Late]:
        try:
            late = self._land(chunk, landed, carefully=False)
        except _REFUSED:
            late = self._land(chunk, landed, carefully=True)
        if show:
            showing.show(self._context)
        return late

    def _land(self, chunk: _Chunk, landed: list[Landed], *, carefully: bool) -> list[_Late]:
        claim = self._context.claim
        assert claim.data_source_id is not None
        with self._context.fenced() as connection:
            # Nobody sees a chunk before a flip, whose commit waits for the disk to have all that came before it.
            connection.execute("set local synchronous_commit = off")
            if carefully:
                rows = [row for part in chunk.parts for row in part.each()]
                places = _copy_carefully(connection, [row for row, _ in rows])
                late = [_Late.of(*rows[at], chunk.loads) for at in places]
            else:
                late = []
                _copy_items(connection, [part.rows for part in chunk.parts])
            _copy_rejects(connection, [*chunk.rejects, *(_late_reject(record) for record in late)])
            statement = loads.put(
                organization_id=claim.organization_id,
                data_source_id=claim.data_source_id,
                job_id=claim.job_id,
                fingerprint=self._plan.fingerprint,
                loads=[_without(load, late) for load in landed] if late else landed,
            )
            db.run(connection, statement)
        return late


def _reject(load_id: int, number: int, record_number: int | None, refusal: Refusal) -> _Reject:
    return (
        load_id, number, refusal.line, record_number, refusal.code, refusal.pointer, refusal.message, refusal.excerpt
    )  # fmt: skip


def _late_reject(record: _Late) -> _Reject:
    return _reject(record.load_id, _LATE_NUMBERS + record.record_number, record.record_number, record.refusal)


def _without(load: Landed, late: Sequence[_Late]) -> Landed:
    """The load's row, less the records that only Postgres refused."""
    mine = [record for record in late if record.load_id == load.id]
    if not mine:
        return load
    copy = Loading(id=load.id, path=load.path, etag=load.etag, was=load.counters["was"])
    copy.errors = {entry["code"]: entry for entry in load.error_summary}
    copy.refused = load.error_count
    for record in mine:
        copy.refuse(record.refusal, record.record_number)
    items = load.item_count - len(mine)
    counters = load.counters | {
        "valid": load.counters["valid"] - len(mine),
        "landed": items,
        "rejected": copy.refused,
    }
    return Landed(
        id=load.id,
        path=load.path,
        etag=load.etag,
        loaded=load.loaded,
        item_count=items,
        error_count=copy.refused,
        error_summary=list(copy.errors.values()),
        counters=counters,
    )


def _copy_items(connection: Connection, rows: Sequence[bytes]) -> None:
    if rows:
        with connection.cursor() as cursor, cursor.copy(_COPY_ITEMS) as copy:
            copy.write(_BEGIN)
            copy.write(b"".join(rows))
            copy.write(_END)


def _copy_carefully(connection: Connection, rows: Sequence[bytes]) -> list[int]:
    """Copy all rows but those that Postgres refuses; the places of these, found by halving."""
    refused: list[int] = []
    parts = [(0, len(rows))]
    while parts:
        begin, end = parts.pop()
        try:
            with connection.transaction():
                _copy_items(connection, rows[begin:end])
        except _REFUSED:
            if end - begin == 1:
                refused.append(begin)
            else:
                middle = (begin + end) // 2
                parts += [(middle, end), (begin, middle)]
    return refused


def _copy_rejects(connection: Connection, rejects: Sequence[_Reject]) -> None:
    if rejects:
        with connection.cursor() as cursor, cursor.copy(_COPY_REJECTS) as copy:
            copy.set_types(_REJECT_TYPES)
            for reject in rejects:
                copy.write_row(reject)
