"""What one API process holds while it runs: database lanes, the doorbell, the pepper, the key look-up, the waiters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine
from starlette.requests import HTTPConnection

from headwater.db import SET_ORGANIZATION, Row, Statement
from headwater.errors import Unavailable
from headwater.jobs.doorbell import Bellboy
from headwater.settings import ApiSettings, JobSettings, QuotaSettings
from headwater.uploads.storage import Storage
from headwater_api.admission import RateLimiter
from headwater_api.authentication import Authenticator
from headwater_api.denials import Denials
from headwater_api.hot_lane import HotLane
from headwater_api.jobs.together import Readings, Submits
from headwater_api.jobs.waiting import Hub

_TURN_SECONDS: Final = 5


@dataclass(frozen=True)
class Lane:
    """The hot lane for one organization."""

    hot: HotLane
    organization_id: UUID

    async def fetch(self, statement: Statement) -> Row | None:
        """Run `statement`; its first row."""
        rows = await self.fetch_all(statement)
        return rows[0] if rows else None

    async def fetch_all(self, statement: Statement) -> list[Row]:
        """Run `statement`; all its rows."""
        acting = Statement(SET_ORGANIZATION, {"acting_for": str(self.organization_id)})
        return await self.hot.run_in_one(acting, statement)


@dataclass(frozen=True)
class Services:
    """Made by `main.lifespan`, one for a process.

    `engine` is the plain lane (ORM sessions in `def` endpoints), `hot` the other (one statement a request).
    `turns` has as many permits as the plain lane has connections. `storage` is where uploads are kept, if anywhere.
    `rate_limiter` is None where there is no limit.
    `metrics_token` opens `/metrics`, which is closed without.
    """

    settings: ApiSettings
    pepper: bytes
    engine: Engine
    turns: asyncio.Semaphore
    hot: HotLane
    bellboy: Bellboy
    authenticator: Authenticator
    rate_limiter: RateLimiter | None
    denials: Denials
    hub: Hub
    readings: Readings
    submits: Submits
    storage: Storage | None
    quotas: QuotaSettings
    caps: JobSettings
    metrics_token: SecretStr | None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free connection of the plain lane, on the event loop. Raises `Unavailable` after five seconds.

        Requests that waited for one in threads would leave none to those that hold the connections.
        """
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self.turns.acquire()
        except TimeoutError:
            raise Unavailable("More is asked at once than can be answered.") from None
        try:
            yield
        finally:
            self.turns.release()

    def lane(self, organization_id: UUID) -> "Lane":
        """The hot lane for one organization."""
        return Lane(self.hot, organization_id)

    async def call(self, statement: Statement) -> list[Row]:
        """Call an SQL function on the hot lane that says itself for whom it acts, or for whom it need not; its rows."""
        return await self.hot.call(statement)


def of(request: HTTPConnection) -> Services:
    """The services of the process that handles `request`."""
    app: FastAPI = request.app
    services: Services = app.state.services
    return services
