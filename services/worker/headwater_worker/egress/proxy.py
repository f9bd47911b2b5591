"""A loopback HTTP proxy that applies the policy below every SDK, whatever language its sockets are in.

One per job, as a thread of the worker child (the way of Stripe's Smokescreen, without a process to watch), from when
somebody asks for the way out: a source that needs none costs none.
"""

import asyncio
import base64
import copy
import secrets
import socket
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from headwater.errors import ConnectorError
from headwater_worker.egress import second_line, wire
from headwater_worker.egress.dial import attempts, connect_failure, require_permitted
from headwater_worker.egress.policy import Policy
from headwater_worker.egress.relay import REFUSALS, Relay, Streams
from headwater_worker.egress.resolve import lookup_timed_out, start_lookup

# botocore and requests send credentials only if there is a user as well as a password.
_USER: Final = "job"
_REMEMBERED: Final = 1000
_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Failure:
    """A connection that the proxy refused or could not make, to `host` as the client wrote it.

    `error` is what the caller of a client may raise instead of what the client made of it.
    """

    host: str
    port: int
    code: str
    error: ConnectorError = field(compare=False, repr=False)


class Proxy:
    """`with Proxy(policy) as proxy:` clients that use `proxy.url` reach what `policy` permits, and nothing
    else.

    CONNECT and absolute-form `http://` requests. A refusal is a 403 with the header `X-Headwater-Refusal:
    <code>`, a failed dial a 502 or 504 with `X-Headwater-Failure: <code>`; both headers are stripped from
    what stores answer. Inside a CONNECT tunnel a store can send what it likes, so that `refusals` and
    `last_failure` are the proof.
    """

    def __init__(self, policy: Policy, *, connect_seconds: float = 10.0, idle_seconds: float = 300.0) -> None:
        self._policy = policy
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._token = secrets.token_hex(32)
        credentials = base64.b64encode(f"{_USER}:{self._token}".encode())
        self._authorization = b"Basic " + credentials
        self._lock = threading.Lock()
        self._refusals: deque[Failure] = deque(maxlen=_REMEMBERED)
        self._last_failure: Failure | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._closing = ExitStack()
        self._port = 0
        self._ended = False

    @property
    def url(self) -> str:
        """`http://<user>:<token>@127.0.0.1:<port>`: a secret of this job. It is served from here to the block's end.

        Raises `RuntimeError` after that end, to a driver that was left behind in its thread.
        """
        with self._lock:
            if self._ended:
                raise RuntimeError("the job's way out is closed")
            if not self._port:
                self._port = self._listen()
        return f"http://{_USER}:{self._token}@127.0.0.1:{self._port}"

    @property
    def refusals(self) -> tuple[Failure, ...]:
        """What the policy refused, oldest first: the last 1000."""
        with self._lock:
            return tuple(self._refusals)

    @property
    def last_failure(self) -> Failure | None:
        """The last refusal or failed dial, unless a later connection to the same host and port succeeded."""
        with self._lock:
            return self._last_failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
        # Outside the lock, which relays take while they end.
        self._closing.close()

    def _listen(self) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        # Accepted connections inherit it. asyncio sets it only where the socket names its protocol; without it an
        # answer in two writes waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port: int = listener.getsockname()[1]
        # Not the process's default loop, which may be uvloop's.
        loop = asyncio.SelectorEventLoop()
        stop = asyncio.Event()
        thread = threading.Thread(target=self._run, args=(loop, listener, stop), name="egress-proxy", daemon=True)
        self._closing.enter_context(second_line.own_endpoint("127.0.0.1", port))
        thread.start()
        self._closing.callback(thread.join, _STOP_SECONDS)
        self._closing.callback(loop.call_soon_threadsafe, stop.set)
        return port

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, stop: asyncio.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(listener, stop))

    async def _serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, sock=listener, limit=wire.BUFFER_BYTES)
        await stop.wait()
        # `Server.close` would lose a connection that is just being accepted: stop listening, let it become a relay.
        asyncio.get_running_loop().remove_reader(listener)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for relay in self._relays:
                relay.cancel()
            await asyncio.wait(others)
        server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = Relay(
            (reader, writer),
            authorization=self._authorization,
            dial=self._dial,
            idle_seconds=self._idle_seconds,
        )
        task = asyncio.get_running_loop().create_task(relay.run())
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        # Here and not in the relay: a task that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _dial(self, host: str, port: int) -> Streams:
        try:
            streams = await self._open(host, port)
        except ConnectorError as error:
            self._remember(Failure(host, port, error.code, _without_frames(error)))
            raise
        self._forget(host, port)
        return streams

    async def _open(self, host: str, port: int) -> Streams:
        """The asynchronous twin of `dial.dial`; what it decides is decided by the same functions."""
        deadline = time.monotonic() + self._connect_seconds
        try:
            async with asyncio.timeout(self._connect_seconds):
                addresses = await asyncio.wrap_future(start_lookup(host, port))
        except TimeoutError:
            raise lookup_timed_out() from None
        require_permitted(host, addresses, self._policy)
        failures: list[OSError] = []
        for address, seconds in attempts(addresses, deadline):
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.open_connection(str(address), port, limit=wire.BUFFER_BYTES)
            except OSError as error:
                failures.append(error)
        raise connect_failure(failures)

    def _remember(self, failure: Failure) -> None:
        with self._lock:
            self._last_failure = failure
            if failure.code in REFUSALS:
                self._refusals.append(failure)

    def _forget(self, host: str, port: int) -> None:
        with self._lock:
            last = self._last_failure
            if last is not None and (last.host, last.port) == (host, port):
                self._last_failure = None


def _without_frames(error: ConnectorError) -> ConnectorError:
    # A traceback would keep the streams of every refused request alive.
    kept = copy.copy(error)
    kept.__cause__ = error.__cause__
    return kept
