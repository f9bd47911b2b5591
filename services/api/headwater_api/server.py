"""The server below the application: uvicorn, with an end to every connection that holds on and moves nothing.

What a client may make the server wait for has a limit: a head, the rest of a body behind its answer, the next request,
and the client's own reading. One look at all connections a second finds who is over it. How long a body may take before
its answer is the application's to say: only it knows whether it reads JSON or a file. Nor is there a limit here to how
long the application takes, for a long poll or a stream of events.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from headwater import ids, log
from headwater.settings import ApiSettings
from headwater_api import heads, middleware, problems

HEAD_SECONDS: Final = 10.0
"""From the connection, or from the first byte of a later request, to the end of the head."""
HEAD_BYTES: Final = 64 * 1024
"""Of one head, or of trailers; a few kilobytes are usual."""
LINGER_SECONDS: Final = 30.0
"""Behind an answer that the client did not wait for: it may send what is left of its body, or hang up."""
KEEP_ALIVE_SECONDS: Final = 75
"""Between two requests: longer than clients keep an idle connection, so that they close it first."""
UNREAD_SECONDS: Final = 60.0
"""While there is something to read, and the client takes none of it."""

_GATHERED_BYTES: Final = 64 * 1024  # more than that is not held back
_TICKS: Final = 10  # of 0.1 s, in uvicorn's own loop
_SHUTDOWN_SECONDS: Final = 5
_RESET: Final = struct.pack("ii", 1, 0)

_log = log.get(__name__)


class _Gathering:
    """A transport that sends what is written in one turn of the loop at once: uvicorn writes an answer in two parts.

    Two messages would wake the client for a head with which it can do nothing.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` in its turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _GATHERED_BYTES:
            self._send()

    def write_eof(self) -> None:
        """No more will be sent."""
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what was written, then close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self._transport.write(b"".join(parts))


class Connection(HttpToolsProtocol):
    """One client's connection. `_since` is when what is waited for now began, `_unanswered` are requests in turn."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._since = self.loop.time()
        self._in_head = True
        self._in_body = False
        self._refused = False
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._progressed = False
        self._unfinished_bytes = 0
        self._unread_bytes = 0
        self._drained_at = self._since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _Gathering(transport))

    def data_received(self, data: bytes) -> None:
        """Parse, but for what comes behind a refusal."""
        if self._refused:
            return
        self._progressed = False
        super().data_received(data)
        # In a row, without the end of a head, a piece of body or the end of a request among them.
        self._unfinished_bytes = 0 if self._progressed else self._unfinished_bytes + len(data)
        if self._unfinished_bytes > HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._since = True, self.loop.time()

    def on_headers_complete(self) -> None:
        """Start the application. Raises `ValueError` on a head that is refused."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refuse_head()
            raise ValueError
        version = self.parser.get_http_version()
        if version not in heads.VERSIONS:
            self._refuse(505, "http_version_not_supported", "This server speaks HTTP/1.1.")
            raise ValueError
        if (ambiguous := heads.ambiguity(version, self.headers)) is not None:
            self._refuse(400, "malformed_request", ambiguous)
            raise ValueError
        super().on_headers_complete()
        # Trailers come by the same callback; they are no headers, whatever their names.
        self.headers = []
        self._unanswered.append(self.cycle)
        self._in_head, self._in_body, self._progressed = False, True, True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        super().on_body(body)
        self._progressed = True

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        super().on_message_complete()
        self._in_body, self._progressed = False, True

    def on_response_complete(self) -> None:
        """The answer was handed over."""
        self._unanswered.popleft()
        super().on_response_complete()
        self._since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that waits for its turn; uvicorn tells the last one."""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._drained_at = self.loop.time()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it is uvicorn who calls
        """What the parser does not understand; uvicorn's own answer would be no problem."""
        self._refuse(400, "malformed_request", "This is not HTTP/1.1 as a server can read it.")

    def end_if_overdue(self, now: float) -> None:
        """End the connection if its client has used up its time. `now` is the loop's."""
        if self._is_unread(now):
            # With a reset, or the kernel would keep what is unsent for as long as the client lives.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self.flow.read_paused:
            self._since = now  # it is the client who waits for us
        elif now - self._since > self._patience_seconds():
            if self._in_head and self.scope is not None:
                detail = f"The head did not come within {HEAD_SECONDS:g} seconds."
                self._refuse(408, "request_timeout", detail)
            else:
                self.transport.close()

    def _patience_seconds(self) -> float:
        if self._refused:
            return LINGER_SECONDS
        if self._unanswered:
            return float("inf")
        if self._in_head:
            return HEAD_SECONDS
        return LINGER_SECONDS if self._in_body else KEEP_ALIVE_SECONDS

    def _is_unread(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if size == 0 or size < self._unread_bytes:
            self._drained_at = now
        self._unread_bytes = size
        return now - self._drained_at > UNREAD_SECONDS

    def _refuse_head(self) -> None:
        detail = f"Request line and header fields are larger than {HEAD_BYTES} bytes together."
        self._refuse(431, "head_too_large", detail)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer in the application's place, then hear nothing more of this client.

        Our side of the connection is closed and the other one left open for a while: closed at once, it would be
        reset by what the client still sends, and the answer lost with it.
        """
        if self._refused:
            return
        self._refused, self._since = True, self.loop.time()
        self.flow.resume_reading()
        own = self.cycle if self._in_body else None
        if (own is not None and own.response_started) or any(cycle is not own for cycle in self._unanswered):
            self.transport.close()  # another answer is on its way, and this one would be taken for a part of it
            return
        if own is not None:
            own.disconnected = True
            own.message_event.set()
        self.transport.write(self._refusal(status, code, detail))
        self.transport.write_eof()

    def _refusal(self, status: int, code: str, detail: str) -> bytes:
        request_id = ids.new().hex
        address = self.client[0] if self.client else None
        _log.info("request.refused", status=status, code=code, request_id=request_id, address=address)
        content = problems.content(status, code, detail, instance="", request_id=request_id)
        body = orjson.dumps(content)
        headers = {
            "Content-Type": problems.MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Request-Id": request_id,
            **middleware.SECURITY,
        }
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return STATUS_LINE[HTTPStatus(status)] + fields.encode() + b"\r\n" + body


class Server(uvicorn.Server):
    """uvicorn's server, which looks at its connections once a second."""

    async def on_tick(self, counter: int) -> bool:
        """End what is overdue; True when the server should stop."""
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                assert isinstance(connection, Connection)
                connection.end_if_overdue(now)
        return await super().on_tick(counter)


def make(app: Callable[..., Any] | str, settings: ApiSettings) -> Server:
    """A server of `app`, or of what an import path names, that was not started yet."""
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    return Server(config)
