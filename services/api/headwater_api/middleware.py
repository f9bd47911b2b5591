"""Around every request: an id, one log line, headers that browsers heed, and problem+json even for a dead pool."""

import re
import time
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater import ids, log

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_log = log.get("headwater_api.request")


class RequestLine:
    """Gives each request an id (its own `X-Request-Id`, if it is a plain one) and logs one line when it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else ids.new().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(service="api", request_id=request_id)
        began, status = time.perf_counter(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if (admission := scope["state"].get("admission")) is not None:
                    headers.update(admission.headers)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception:
            # A fault was answered and logged further in, and is raised once more for the server to log it again.
            if not status:
                raise
        finally:
            route, actor = scope.get("route"), scope["state"].get("actor")
            _log.info(
                "request.handled",
                method=scope["method"],
                route=getattr(route, "path", None),
                path=scope["path"],
                organization_id=actor and ids.encode("org", actor.organization_id),
                member_id=actor and ids.encode("user", actor.member_id),
                key_id=actor and actor.key_id and ids.encode("key", actor.key_id),
                status=status,
                duration_ms=round((time.perf_counter() - began) * 1000, 1),
            )
