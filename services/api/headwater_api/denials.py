"""Acts that were refused, for the audit log: counted by actor and minute, and written apart from any request.

A refusal changes nothing, so there is no transaction that its entry could stand in; and one entry for each would let
whoever is refused fill the log.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from headwater import clock, log
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.db import Row, Statement

MINUTE_SECONDS: Final = 60.0
# More at once are written before their minute is over.
_MOST_COUNTED: Final = 1_000

Write = Callable[[UUID, Statement], Awaitable[list[Row]]]

_log = log.get(__name__)


@dataclass(frozen=True)
class Refused:
    """Who was refused, and why: `permission` is what was missing, `reason` a code such as `api_key_revoked`."""

    organization_id: UUID
    member_id: UUID
    key_id: UUID | None
    permission: str | None = None
    reason: str | None = None


@dataclass
class _Count:
    """The refusals of one minute that are alike; request and address are the first one's."""

    request_id: str
    address: str | None
    first_at: datetime = field(default_factory=clock.now)
    last_at: datetime = field(default_factory=clock.now)
    count: int = 0


class Denials:
    """One for a process. `write` runs a statement for an organization."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._counted: dict[Refused, _Count] = {}
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write down each minute what was counted, until `stop`."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write down what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._write_down()

    def note(self, refused: Refused, *, request_id: str, address: str | None) -> None:
        """Count one refusal."""
        counted = self._counted.setdefault(refused, _Count(request_id, address))
        counted.count += 1
        counted.last_at = clock.now()
        if len(self._counted) >= _MOST_COUNTED:
            self._full.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MINUTE_SECONDS):
                    await self._full.wait()
            self._full.clear()
            await self._write_down()

    async def _write_down(self) -> None:
        counted, self._counted = self._counted, {}
        for refused, count in counted.items():
            try:
                await self._write(refused.organization_id, _entry(refused, count))
            except psycopg.Error as error:
                # The log of this process has each refusal as a request that was answered 401 or 403.
                _log.error("denials.not_written", error=type(error).__name__, count=count.count)


def _entry(refused: Refused, count: _Count) -> Statement:
    details: dict[str, Any] = {
        "permission": refused.permission,
        "reason": refused.reason,
        "count": count.count,
        "first_at": clock.rfc3339(count.first_at),
        "last_at": clock.rfc3339(count.last_at),
    }
    return audit_log.entry(
        organization_id=refused.organization_id,
        actor_id=refused.member_id,
        key_id=refused.key_id,
        act=Act.ACCESS_DENY,
        subject_id=None,
        request_id=count.request_id,
        address=count.address,
        details={name: value for name, value in details.items() if value is not None},
    )
