"""One client's connection to the proxy, from its first request to its end."""

import asyncio
import hmac
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from headwater.errors import ConnectorError
from headwater_worker.egress import wire
from headwater_worker.egress.wire import Head, Target, WireError

Streams = tuple[StreamReader, StreamWriter]

REFUSALS: Final = frozenset({"blocked_target", "config_invalid"})

_LINGER_SECONDS: Final = 2.0
_DISCARD_BYTES: Final = 64 * 1024


class Relay:
    """Serves requests until either side is done, nothing moved for `idle_seconds`, or its task is cancelled.
    Whoever made it closes `client`.

    `dial` gives the streams of a checked connection or raises `ConnectorError`. A message that breaks HTTP
    ends the connection, as it would without a proxy.
    """

    def __init__(
        self,
        client: Streams,
        *,
        authorization: bytes,
        dial: Callable[[str, int], Awaitable[Streams]],
        idle_seconds: float,
    ) -> None:
        self._reader, self._writer = client
        self._authorization = authorization
        self._dial = dial
        self._idle_seconds = idle_seconds
        self._idle = asyncio.timeout(None)
        self._target: tuple[str, int] | None = None
        self._upstream: Streams | None = None

    async def run(self) -> None:
        # All that was written has reached the kernel once `drain` returns, so that the end may be abrupt.
        self._writer.transport.set_write_buffer_limits(high=0)
        try:
            async with self._idle:
                self._touch()
                while await self._serve_one():
                    pass
        except (OSError, EOFError, WireError):
            return
        finally:
            self._drop_upstream()

    async def _serve_one(self) -> bool:
        """Answer one request. Whether the client may send another."""
        request = await wire.read_head(self._reader)
        if request is None:
            return False
        self._touch()
        given = b"".join(request.values(b"proxy-authorization"))
        if not hmac.compare_digest(given, self._authorization):
            challenge = {"Proxy-Authenticate": 'Basic realm="egress"'}
            return await self._answer(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, challenge)
        try:
            return await self._serve(request)
        except ConnectorError as error:
            return await self._answer(*_described(error))

    async def _serve(self, request: Head) -> bool:
        method, text, version = request.start
        try:
            is_tunnel = method == b"CONNECT"
            target = wire.connect_target(text) if is_tunnel else wire.absolute_target(text, request.values(b"host"))
            framing = wire.request_framing(request)
            if version not in (b"HTTP/1.1", b"HTTP/1.0"):
                raise WireError("the version is not HTTP/1.x")
        except WireError:
            return await self._answer(HTTPStatus.BAD_REQUEST, {})
        if is_tunnel:
            return await self._tunnel(target)
        return await self._exchange(request, target, framing)

    async def _tunnel(self, target: Target) -> bool:
        reader, writer = await self._connect(target)
        self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._writer.drain()
        ways = [
            asyncio.ensure_future(self._pump(self._reader, writer)),
            asyncio.ensure_future(self._pump(reader, self._writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
        return False

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        await wire.copy_until_closed(reader, writer, self._touch)
        # The other way goes on: a peer that has sent all it has may still be reading.
        writer.write_eof()

    async def _exchange(self, request: Head, target: Target, framing: wire.Framing) -> bool:
        _, writer = await self._connect(target)
        writer.write(wire.request_bytes(request, target))
        await writer.drain()
        # The body travels beside the answer: clients wait for `100 Continue`, servers refuse before the end.
        sending = None if framing.empty else asyncio.ensure_future(self._send_body(writer, framing))
        try:
            return await self._return_response(request, sending)
        finally:
            if sending is not None:
                sending.cancel()

    async def _send_body(self, writer: StreamWriter, framing: wire.Framing) -> None:
        try:
            await wire.copy_body(self._reader, writer, framing, self._touch)
        except (OSError, EOFError, WireError):
            # Half a body must never look like a whole one.
            writer.transport.abort()

    async def _return_response(self, request: Head, sending: "asyncio.Future[None] | None") -> bool:
        assert self._upstream is not None
        reader, _ = self._upstream
        response = await self._final_head(reader)
        framing = wire.response_framing(response, request.start[0])
        whole = sending is None or sending.done()
        close = framing.until_closed or not whole or not wire.persistent(request, request.start[2])
        self._writer.write(wire.response_bytes(response, close=close))
        await self._writer.drain()
        await wire.copy_body(reader, self._writer, framing, self._touch)
        if close or not wire.persistent(response, response.start[0]):
            self._drop_upstream()
        if not whole:
            await self._linger()
        return not close

    async def _final_head(self, reader: StreamReader) -> Head:
        while True:
            response = await wire.read_head(reader)
            if response is None:
                raise WireError("the server closed without an answer")
            self._touch()
            status = wire.status(response)
            if status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise WireError("nobody asked for another protocol")
            if status >= 200:
                return response
            self._writer.write(wire.response_bytes(response, close=False))
            await self._writer.drain()

    async def _connect(self, target: Target) -> Streams:
        """The connection of the request before, if it was to the same host and is alive, else a new one."""
        upstream, wanted = self._upstream, (target.host, target.port)
        if upstream is not None and self._target == wanted and not upstream[0].at_eof():
            return upstream
        self._drop_upstream()
        self._upstream = upstream = await self._dial(*wanted)
        self._target = wanted
        upstream[1].transport.set_write_buffer_limits(high=0)
        self._touch()
        return upstream

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream[1].transport.abort()
            self._upstream = None

    async def _answer(self, status: HTTPStatus, headers: dict[str, str], text: str = "") -> bool:
        body = f"{text or status.phrase}\n".encode()
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self._writer.drain()
        await self._linger()
        return False

    async def _linger(self) -> None:
        # Closing on bytes that nobody read would reset the connection, and the answer with it.
        self._writer.write_eof()
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._reader.read(_DISCARD_BYTES):
                    pass
        except TimeoutError:
            return

    def _touch(self) -> None:
        if self._idle.expired():
            return
        now = asyncio.get_running_loop().time()
        planned = self._idle.when()
        # Moving a timer costs more than reading the clock, and there may be many blocks in a second.
        if planned is None or planned - now < self._idle_seconds * 0.9:
            self._idle.reschedule(now + self._idle_seconds)


def _described(error: ConnectorError) -> tuple[HTTPStatus, dict[str, str], str]:
    if error.code in REFUSALS:
        return HTTPStatus.FORBIDDEN, {wire.REFUSAL_HEADER: error.code}, error.message
    status = HTTPStatus.GATEWAY_TIMEOUT if error.code == "timeout" else HTTPStatus.BAD_GATEWAY
    return status, {wire.FAILURE_HEADER: error.code}, error.message
