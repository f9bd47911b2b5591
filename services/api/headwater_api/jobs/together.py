"""Reading jobs together: requests that come while one read is under way share the next.

By itself, a read costs Postgres and this process more in messages and wake-ups than in work. Nobody waits for company:
a request that comes alone is served at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias
from uuid import UUID

from headwater.db import Row, Statement
from headwater.jobs import statements

_Asked: TypeAlias = tuple[UUID, UUID, asyncio.Future[Row | None]]


class Readings:
    """One for a process. `call` runs a call of an SQL function on the hot lane."""

    def __init__(self, call: Callable[[Statement], Awaitable[list[Row]]]) -> None:
        self._call = call
        self._waiting: list[_Asked] = []
        self._reading: asyncio.Task[list[Row]] | None = None

    async def read(self, organization_id: UUID, job_id: UUID) -> Row | None:
        """A row of `job_view`, read after this was called; None if the organization has no such job."""
        answer: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((organization_id, job_id, answer))
        if self._reading is None:
            self._begin()
        return await answer

    def _begin(self) -> None:
        asked, self._waiting = self._waiting, []
        self._reading = asyncio.create_task(self._look_at(asked))
        self._reading.add_done_callback(partial(self._end, asked))

    async def _look_at(self, asked: Sequence[_Asked]) -> list[Row]:
        return await self._call(statements.read([(organization, job) for organization, job, _ in asked]))

    def _end(self, asked: Sequence[_Asked], reading: asyncio.Task[list[Row]]) -> None:
        self._reading = None
        if self._waiting:
            self._begin()
        error = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        rows = [] if error else reading.result()
        for place, (_, _, answer) in enumerate(asked):
            if answer.done():
                continue  # who asked has hung up
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(rows[place]["job"])
