"""Around every request: an id, one log line, headers that browsers heed, and problem+json even for a dead pool."""

import re
import time
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater import ids, log

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ID_HEADER: Final = b"x-request-id"
SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_SECURITY: Final = [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]

_log = log.get("headwater_api.request")


class RequestLine:
    """Gives each request an id (its own `X-Request-Id`, if it is a plain one) and logs one line when it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == _ID_HEADER), "")
        request_id = given if _REQUEST_ID.fullmatch(given) else ids.new().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(service="api", request_id=request_id)
        began, status = time.perf_counter(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                headers.append((_ID_HEADER, request_id.encode()))
                if (admission := scope["state"].get("admission")) is not None:
                    headers += [(name.lower().encode(), value.encode()) for name, value in admission.headers.items()]
                set_already = {name for name, _ in headers}
                headers += [header for header in _SECURITY if header[0] not in set_already]
                message["headers"] = headers
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
                **(actor.named if actor else {}),
                status=status,
                duration_ms=round((time.perf_counter() - began) * 1000, 1),
            )
