"""Liveness and readiness, outside the versioned API and without a key."""

import asyncio
from typing import Any

import psycopg
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from headwater import __version__, db
from headwater_api import services

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is this process alive?")
async def healthz() -> dict[str, str]:
    """Answers while the process runs, whatever else is away."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz", summary="Can this process serve?", responses={503: {"description": "Not ready"}})
async def readyz(request: Request) -> Response:
    """Ready when Postgres answers and has this version's schema, or a newer one's: a deploy migrates first.

    Redis away is `degraded`: jobs wait, requests do not.
    """
    held = services.of(request)
    checks: dict[str, Any] = {"database": await _database(held), "redis": await asyncio.to_thread(_redis, held)}
    ready = checks["database"] == "ok"
    status = "ok" if ready and checks["redis"] == "ok" else "degraded" if ready else "unavailable"
    return JSONResponse({"status": status, "checks": checks}, status_code=200 if ready else 503)


async def _database(held: services.Services) -> str:
    try:
        rows = await held.call(db.Statement("select version_num from alembic_version"))
    except psycopg.Error:
        return "unavailable"
    found = rows[0]["version_num"] if rows else "none"
    return "ok" if rows and found >= db.REVISION else f"schema {found} where {db.REVISION} is needed"


def _redis(held: services.Services) -> str:
    return "ok" if held.bellboy.reachable() else "unavailable"
