"""The hot lane: one statement is one transaction and one round trip, on connections of this process.

What psycopg puts around a statement (a cursor, a pool's bookkeeping, a fresh wait for the socket) takes longer here
than Postgres takes to answer. So connections are opened and values adapted by psycopg, and the messages are libpq's:
each connection's socket is watched for as long as it lives, which also tells at once when an idle one breaks.
"""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGresult

from headwater import db
from headwater.db import Row, Statement

_TURN_SECONDS: Final = 2.0
# A statement takes at most 5 s, and waits at most 2 s for a lock. All of them walk along indexes: a plan that was made
# while a table was small, and is kept, would go on reading the whole of it.
_OPTIONS: Final = (
    "-c statement_timeout=5000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000"
    f" -c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c TimeZone=UTC {db.SERVER_KEEPALIVES}"
)
_CONNECT: Final[dict[str, Any]] = {
    **db.CONNECT,
    "autocommit": True,
    "application_name": "headwater-api",
    "options": _OPTIONS,
    "connect_timeout": 2,
}
_NAMED: Final = re.compile(r"%\((\w+)\)s|%%")

_Connected: TypeAlias = psycopg.AsyncConnection[Any]


class HotLane:
    """Up to `size` connections, each opened when it is first needed and again after it broke."""

    def __init__(self, database_url: str, *, size: int) -> None:
        self._database_url = database_url
        self._turns = asyncio.Semaphore(size)
        self._idle: list[_Wire] = []

    async def call(self, statement: Statement) -> list[Row]:
        """Run `statement`, which is prepared once on each connection; its rows.

        Raises `psycopg.Error`; `OperationalError` also when no connection becomes free within two seconds.
        """
        return await self._run(lambda wire: wire.call(statement))

    async def run_in_one(self, *statements: Statement) -> list[Row]:
        """Run `statements` in one message and one transaction, their values written into the text; the last's rows."""
        return await self._run(lambda wire: wire.run_in_one(statements))

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    async def _run(self, use: Callable[["_Wire"], Awaitable[list[Row]]]) -> list[Row]:
        if self._turns.locked():
            await self._wait()
        else:
            await self._turns.acquire()
        try:
            wire = self._alive() or await _Wire.open(self._database_url)
            try:
                return await use(wire)
            finally:
                if wire.reusable:
                    self._idle.append(wire)
                else:
                    wire.close()
        finally:
            self._turns.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise psycopg.OperationalError(f"no connection became free within {_TURN_SECONDS:g} s") from None

    def _alive(self) -> "_Wire | None":
        while self._idle:
            if (wire := self._idle.pop()).reusable:
                return wire
        return None


class _Wire:
    """One connection, with one message under way at a time."""

    def __init__(self, connection: _Connected) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._socket = connection.pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._adapting = Transformer(connection)
        self._prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._results: list[PGresult] = []
        self._answered: asyncio.Future[None] | None = None
        self._loop.add_reader(self._socket, self._read)

    @classmethod
    async def open(cls, database_url: str) -> "_Wire":
        """Connect. Raises `psycopg.OperationalError`."""
        return cls(await psycopg.AsyncConnection.connect(database_url, **_CONNECT))

    @property
    def reusable(self) -> bool:
        """Whether another statement may be sent: the connection stands and nothing is under way."""
        return self._answered is None and self._libpq.status == ConnStatus.OK

    def close(self) -> None:
        """End the connection, whatever is under way."""
        if self._libpq.status == ConnStatus.OK:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._libpq.finish()

    async def call(self, statement: Statement) -> list[Row]:
        query, names = _numbered(statement.text)
        values = self._adapting.dump_sequence(
            [statement.parameters[name] for name in names], [PyFormat.AUTO] * len(names)
        )
        types, formats = self._adapting.types or (), self._adapting.formats
        name = self._prepared.get((query, types))
        if name is None:
            name = b"hot%d" % len(self._prepared)
            self._libpq.send_prepare(name, query, types)
            await self._answer()
            self._prepared[query, types] = name
        self._libpq.send_query_prepared(name, values, formats)
        return self._rows(await self._answer())

    async def run_in_one(self, statements: Sequence[Statement]) -> list[Row]:
        cursor = psycopg.AsyncClientCursor(self._connection)
        text = ";".join(cursor.mogrify(statement.text, statement.parameters) for statement in statements)
        self._libpq.send_query(text.encode())
        return self._rows(await self._answer())

    async def _answer(self) -> PGresult:
        """The last result of the message that was just sent. Raises what Postgres says, or that it is gone."""
        self._answered = self._loop.create_future()
        if self._libpq.flush():
            self._loop.add_writer(self._socket, self._write)
        # Cancelled meanwhile, it stays under way, and the connection is closed.
        await self._answered
        self._answered = None
        results, self._results = self._results, []
        for result in results:
            if result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) is not None:
                raise psycopg.errors.error_from_result(result)
        return results[-1]

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                if (result := self._libpq.get_result()) is None:
                    self._end()
                    return
                self._results.append(result)
        except psycopg.OperationalError as error:
            self._lose(error)

    def _write(self) -> None:
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self._lose(error)

    def _end(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _lose(self, error: psycopg.OperationalError) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    def _rows(self, result: PGresult) -> list[Row]:
        self._adapting.set_pgresult(result)
        columns = [cast("bytes", result.fname(column)).decode() for column in range(result.nfields)]
        return self._adapting.load_rows(0, result.ntuples, lambda values: dict(zip(columns, values, strict=True)))


@functools.lru_cache(maxsize=256)
def _numbered(text: str) -> tuple[bytes, tuple[str, ...]]:
    """`text` with `$1` for the first name in it, and so on; the names."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}" if found[1] else "%"

    return _NAMED.sub(number, text).encode(), tuple(names)
