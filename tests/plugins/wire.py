"""A TCP proxy for tests: between one process, or all of them, and Postgres, Redis or a source; switched at any time.

with wire.to(database_url) as line:
    worker = engine.worker(database=line.url)
    line.mode = "blackhole"
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

Mode = Literal["pass", "reset", "blackhole", "slow"]

_CHUNK_BYTES: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is unsent and says RST


class Wire:
    """A proxy on loopback to the server that `url` names; `self.url` is the same through the proxy.

    `mode`: `pass`; `reset` ends what is open and refuses what comes, as a server that is down does; `blackhole` keeps
    all open and carries nothing until it is switched back; `slow` waits `slow_seconds` before each piece.
    `carried`: bytes that went towards the server so far.
    """

    def __init__(self, url: str, *, slow_seconds: float = 0.1) -> None:
        self.slow_seconds = slow_seconds
        self.carried = 0
        parts = urlsplit(url)
        self._server_at = parts.hostname, parts.port
        self._mode: Mode = "pass"
        self._served: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._flows = asyncio.Event()
        self._flows.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        self._listener = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        port = self._listener.sockets[0].getsockname()[1]
        login, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{port}"))

    @property
    def mode(self) -> Mode:
        """How it behaves now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._run(self._switch())

    @property
    def open(self) -> int:
        """How many connections lead through it now."""
        return len(self._served)

    def cut(self) -> None:
        """Reset every connection that is open; new ones are served."""
        self._run(self._cut())

    def close(self) -> None:
        """End it and all its connections."""
        self._loop.call_soon_threadsafe(self._listener.close)
        self.mode = "reset"
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _switch(self) -> None:
        if self._mode == "blackhole":
            self._flows.clear()
        else:
            self._flows.set()
        if self._mode == "reset":
            await self._cut()

    async def _end(self) -> None:
        """Whoever is still on the way to the server is let go of: what a loop leaves open is a warning later on."""
        await asyncio.sleep(0)  # each has begun, and knows what to close
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _cut(self) -> None:
        going = dict(self._served)
        for sides in going.values():
            for side in sides:
                _reset(side)
        if going:
            await asyncio.wait(going)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            await self._flows.wait()
            if self._mode == "reset":
                raise ConnectionRefusedError
            answers, server = await asyncio.open_connection(*self._server_at)
        except (OSError, asyncio.CancelledError):
            _reset(client)
            return
        # It may have been switched meanwhile.
        if self._mode == "reset":
            _reset(client)
            _reset(server)
            return
        task = asyncio.current_task()
        assert task is not None
        self._served[task] = client, server
        ways = [
            asyncio.ensure_future(self._carry(reader, server, counted=True)),
            asyncio.ensure_future(self._carry(answers, client, counted=False)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for side in (client, server):
            side.close()
            with suppress(OSError):
                await side.wait_closed()
        del self._served[task]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(_CHUNK_BYTES):
                if self._mode == "slow":
                    await asyncio.sleep(self.slow_seconds)
                # What was under way when it went dark arrives when there is light again.
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
                self.carried += len(piece) if counted else 0


def _reset(side: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    side.transport.abort()


@contextmanager
def to(url: str, **options: Any) -> Iterator[Wire]:
    """A wire to the server of `url` for the length of the block."""
    line = Wire(url, **options)
    try:
        yield line
    finally:
        line.close()
