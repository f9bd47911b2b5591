"""The application: routers, error handlers, and what one process holds while it runs."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import sqlalchemy.exc
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from starlette.types import ASGIApp

from headwater import __version__, db, log
from headwater.access import api_keys
from headwater.jobs import dispatching
from headwater.jobs.doorbell import Bellboy, Doorbell, Ring
from headwater.settings import (
    ApiSettings,
    BrowserSettings,
    DatabaseSettings,
    JobSettings,
    MetricsSettings,
    OidcSettings,
    QuotaSettings,
    RedisSettings,
    UploadSettings,
)
from headwater.uploads import configured
from headwater_api import health, metrics, openapi, problems, signing_in
from headwater_api.access import api_keys as api_key_routes
from headwater_api.access import members
from headwater_api.access import routes as access
from headwater_api.admission import RateLimiter, Strangers
from headwater_api.audit import routes as audit
from headwater_api.authentication import Authenticator
from headwater_api.catalogue import routes as catalogue
from headwater_api.connectors import routes as types
from headwater_api.credentials import routes as credentials
from headwater_api.data_sources import events
from headwater_api.data_sources import routes as data_sources
from headwater_api.denials import Denials
from headwater_api.direct import DirectRoutes
from headwater_api.hot_lane import HotLane
from headwater_api.jobs import many as many_jobs
from headwater_api.jobs import routes as jobs
from headwater_api.jobs import starting as starting_jobs
from headwater_api.jobs.together import Readings, Submits
from headwater_api.jobs.waiting import Hub
from headwater_api.middleware import RequestLine, SharedOrigins
from headwater_api.projects import routes as projects
from headwater_api.services import Services
from headwater_api.uploads import routes as uploads
from headwater_api.webhooks import deliveries
from headwater_api.webhooks import routes as webhooks

PREFIX: Final = "/api/v1"

_DESCRIPTION: Final = """
Register where data lives, keep the credentials sealed, test connections, list files, sync records.

Work that touches a source runs as a **job**: the request answers `202` with the job, and `GET /jobs/{id}?wait=25`
waits for its end. Errors are `application/problem+json` (RFC 9457); decide by `code`. Where requests of a
key are limited, `RateLimit` in every answer tells how many are left.
"""

# Tried in this order, behind those that are found directly.
_ROUTERS: Final[Sequence[APIRouter]] = (
    jobs.router,
    starting_jobs.router,
    access.router,
    members.router,
    api_key_routes.router,
    types.router,
    projects.router,
    data_sources.router,
    events.router,
    credentials.router,
    many_jobs.router,
    catalogue.router,
    uploads.router,
    webhooks.router,
    deliveries.router,
    audit.router,
)

_log = log.get(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the lanes and the doorbell; close them in reverse."""
    settings = ApiSettings()
    database, oidc = DatabaseSettings(), OidcSettings()
    pepper = api_keys.read_pepper(settings.pepper_file)
    engine = db.engine(database.database_url, application="headwater-api", pool_size=database.database_pool)
    hot = HotLane(database.database_url, size=database.database_pool)
    bellboy = Bellboy(Doorbell(RedisSettings().redis_url), _unring_through(engine))
    bellboy.start()

    async def call(statement: db.Statement) -> list[db.Row]:
        return await services.call(statement)

    async def write(organization_id: UUID, statement: db.Statement) -> list[db.Row]:
        return await services.lane(organization_id).fetch_all(statement)

    denials, strangers, caps = Denials(write), Strangers(), JobSettings()
    limit = settings.rate_limit
    services = Services(
        settings=settings,
        pepper=pepper,
        engine=engine,
        turns=asyncio.Semaphore(database.database_pool),
        hot=hot,
        bellboy=bellboy,
        authenticator=Authenticator(
            call, pepper, denials, strangers, signing_in.configured(oidc, call, denials, strangers)
        ),
        rate_limiter=RateLimiter(limit, RedisSettings().redis_url) if limit else None,
        denials=denials,
        hub=Hub(database.database_url, call, caps),
        readings=Readings(call),
        submits=Submits(call),
        storage=configured.storage(UploadSettings()),
        quotas=QuotaSettings(),
        caps=caps,
        metrics_token=MetricsSettings().metrics_token,
    )
    app.state.services = services
    services.hub.start()
    services.denials.start()
    services.authenticator.start()
    if services.rate_limiter is not None:
        services.rate_limiter.start()
    # What is here now stays; a full collection would look through all of it, and every request would wait.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    if services.rate_limiter is not None:
        await services.rate_limiter.stop()
    await services.authenticator.stop()
    await services.hub.stop()
    await services.denials.stop()
    bellboy.stop()
    await hot.close()
    engine.dispose()


def _unring_through(engine: Engine) -> Callable[[Sequence[Ring]], None]:
    def unring(rings: Sequence[Ring]) -> None:
        by_organization: dict[UUID, list[UUID]] = {}
        for ring in rings:
            by_organization.setdefault(ring.organization_id, []).append(ring.job_id)
        try:
            for organization_id, job_ids in by_organization.items():
                with db.session(engine, organization_id) as session:
                    db.run_in(session, dispatching.unring(job_ids))
        except sqlalchemy.exc.SQLAlchemyError as error:
            # They stay rung, and the dispatcher rings again for what nobody claims.
            _log.warning("doorbell.unring_failed", count=len(rings), error=type(error).__name__)

    return unring


def _operation_id(route: APIRoute) -> str:
    """Stable names for generated clients: the endpoint's own."""
    return route.name


class Application(FastAPI):
    """FastAPI with the request's line around everything, also around the answer to a fault of ours."""

    def build_middleware_stack(self) -> ASGIApp:
        browsers = BrowserSettings()
        stack = super().build_middleware_stack()
        if browsers.origins:
            stack = SharedOrigins(stack, browsers.origins)
        return RequestLine(stack, hsts_seconds=browsers.hsts_seconds)


def create_app() -> FastAPI:
    """The whole application."""
    app = Application(
        title="Headwater",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        # A redirect would name whatever host the request claims; a path with a slash too many is unknown.
        redirect_slashes=False,
        # It would export errors with their texts, past the masks of the log.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        responses=openapi.refusals(*openapi.EVERYWHERE),
    )
    problems.install(app)
    app.router.routes.insert(0, DirectRoutes(PREFIX, _ROUTERS))
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(health.router)
    app.include_router(metrics.router)
    openapi.install(app)
    return app


app = create_app()
