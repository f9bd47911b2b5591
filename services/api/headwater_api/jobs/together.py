"""Jobs together: reads of jobs that come at one moment share a statement, and submits of one member do."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, Final, TypeAlias
from uuid import UUID

import psycopg

from headwater.db import Row, Statement
from headwater.jobs import statements
from headwater_api.actor import Actor
from headwater_api.together import Together

_LANES: Final = 2  # Postgres reads for one while those of the other are taken in

_Call: TypeAlias = Callable[[Statement], Awaitable[list[Row]]]
_Submitted: TypeAlias = tuple[UUID, Mapping[str, Any]]


class Readings:
    """One for a process. `call` runs a call of an SQL function on the hot lane."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._together: Together[tuple[UUID, UUID], Row | None] = Together(self._read)
        self._lanes = cycle(range(_LANES))

    async def read(self, organization_id: UUID, job_id: UUID) -> Row | None:
        """A row of `job_view`, read after this was called; None if the organization has no such job."""
        return await self._together.ask((organization_id, job_id), group=next(self._lanes))

    async def _read(self, asked: Sequence[tuple[UUID, UUID]]) -> list[Row | None]:
        return [row["job"] for row in await self._call(statements.read(asked))]


class Submits:
    """One for a process. `call` runs a call of an SQL function on the hot lane."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._together: Together[_Submitted, Row] = Together(self._submit)

    async def submit(self, actor: Actor, request: Mapping[str, Any]) -> Row:
        """What became of `request`, after its commit: see `statements.submit`. Raises `psycopg.Error`.

        Those of one member wait for each other's locks, and for nobody else's.
        """
        member = (actor.organization_id, actor.member_id)
        return await self._together.ask((actor.organization_id, request), group=member)

    async def _submit(self, submitted: Sequence[_Submitted]) -> Sequence[Row | BaseException]:
        try:
            return await self._run(submitted)
        except psycopg.Error as error:
            # Without a state it is not known whether it was committed; with one it is rolled back.
            if error.sqlstate is None or len(submitted) == 1:
                raise
        alone = [self._run([one]) for one in submitted]
        told = await asyncio.gather(*alone, return_exceptions=True)
        return [one if isinstance(one, BaseException) else one[0] for one in told]

    async def _run(self, submitted: Sequence[_Submitted]) -> list[Row]:
        (organization_id, _), *_ = submitted
        requests = [request for _, request in submitted]
        rows = await self._call(statements.submit(organization_id=organization_id, requests=requests))
        return [row["answer"] for row in rows]
