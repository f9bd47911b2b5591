"""Around every request: an id, one log line, headers that browsers heed, and problem+json even for a dead pool."""

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater import ids, log, masking

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ID_HEADER: Final = b"x-request-id"
SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# The pages of the reference: FastAPI writes a script into them that loads what draws them.
_PAGES: Final = frozenset({"/docs", "/redoc"})
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline'"
    " https://cdn.jsdelivr.net https://fonts.googleapis.com; font-src https://fonts.gstatic.com; worker-src blob:;"
    " img-src data: https://fastapi.tiangolo.com https://cdn.redoc.ly; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_READ_FIELDS: Final = (
    "Authorization", "Content-Type", "Content-Range", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID",
    "Prefer", "X-Request-Id",
)  # fmt: skip
_SHOWN_FIELDS: Final = (
    "ETag", "Idempotency-Replayed", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id",
)  # fmt: skip
_PREFLIGHT_SECONDS: Final = 600
_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_NO_SECRETS: Final = contextlib.nullcontext()

_RawHeader: TypeAlias = tuple[bytes, bytes]


def _raw(headers: Mapping[str, str]) -> list[_RawHeader]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


_SECURITY: Final = _raw(SECURITY)
_PAGE_SECURITY: Final = _raw({**SECURITY, "Content-Security-Policy": _PAGE_POLICY})

_log = log.get("headwater_api.request")


class RequestLine:
    """Gives each request an id (its own `X-Request-Id`, if it is a plain one) and logs one line when it ends."""

    def __init__(self, app: ASGIApp, *, hsts_seconds: int = 0) -> None:
        self._app = app
        # Said over plain HTTP it means nothing (RFC 6797, section 7.2).
        self._hsts = _raw({"Strict-Transport-Security": f"max-age={hsts_seconds}"} if hsts_seconds else {})

    def _headers(self, scope: Scope) -> list[_RawHeader]:
        said = _PAGE_SECURITY if scope["path"] in _PAGES else _SECURITY
        return said + self._hsts if scope["scheme"] == "https" else said

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
                    headers += _raw(admission.headers)
                set_already = {name for name, _ in headers}
                headers += [header for header in self._headers(scope) if header[0] not in set_already]
                message["headers"] = headers
            await send(message)

        try:
            with masking.masks_here() if scope["method"] in _WRITES else _NO_SECRETS:
                try:
                    await self._app(scope, receive, send_marked)
                except Exception:
                    # A fault was answered and logged further in, and is raised once more for the server to log it
                    # again. One that was not is said here: the server would not know the request's secrets.
                    if not status:
                        _log.error("request.unanswered", exc_info=True)
                        raise RuntimeError("A request was not answered.") from None
        finally:
            # Without those secrets in mind: who asks would choose which words of this line are masked.
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


class SharedOrigins:
    """Answers the questions of browsers for pages of these origins; for other pages there is no such thing as CORS.

    Keys are sent in a field of their own and never by the browser by itself, so credentials are not allowed.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._shared = CORSMiddleware(
            app,
            allow_origins=sorted(self._origins),
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=_READ_FIELDS,
            expose_headers=_SHOWN_FIELDS,
            max_age=_PREFLIGHT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_shared = scope["type"] == "http" and Headers(scope=scope).get("Origin") in self._origins
        await (self._shared if is_shared else self._app)(scope, receive, send)
