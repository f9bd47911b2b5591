"""A worker's side of its readers: the nursery that it keeps warm, and the few readers of one sync.

A reader serves one job: what one organization's files may have done to it, another's never meet. Files are given to a
reader one behind another, and answered in that order.
"""

import atexit
import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import orjson

from headwater.data_sources.record_schema import RecordSchema
from headwater_worker.sync import messages
from headwater_worker.sync.formats.base import READ_BYTES, ByteStream, Refusal
from headwater_worker.sync.judging import Judged
from headwater_worker.sync.loading import Loading
from headwater_worker.sync.messages import Done, Garbled, Order

MOST: Final = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Readers of one sync; more would wait for Postgres, which takes in what they give."""
DIED: Final = "reader_died"
# Never imported here: it loads what a worker must not have before it forks.
_READER: Final = "headwater_worker.sync.reader"

_PIPE_BYTES: Final = 1024 * 1024
_WAIT_MILLISECONDS: Final = 500
# An allocator that gives back what it can, in one arena, so that the limit is about what is used.
_ENVIRONMENT: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "PYTHONUTF8": "1"}


class Nursery:
    """The process that forks readers; it has never seen a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-I", "-m", _READER, str(os.getpid())],
                env=_ENVIRONMENT,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End it, and with it what it forked."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it may be asked."""
        return self._process.poll() is None

    def begin(self, descriptors: list[int]) -> int:
        """A reader's pid. Raises `OSError` if the nursery has gone."""
        return self._ask(messages.BEGIN, 0, descriptors)

    def end(self, pid: int) -> int:
        """End a reader, if it lives; its wait status."""
        return self._ask(messages.LAST, pid, [])

    def _ask(self, what: bytes, pid: int, descriptors: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._control, [what + messages.PID.pack(pid)], descriptors)
            answer = self._control.recv(messages.PID.size)
        if len(answer) < messages.PID.size:
            raise ConnectionResetError("The nursery has gone.")
        return int(messages.PID.unpack(answer)[0])


_nurseries: Final[dict[int, Nursery]] = {}


def nursery() -> Nursery:
    """The one of this process, which may be a fork of another."""
    found = _nurseries.get(os.getpid())
    if found is None or not found.lives:
        found = _nurseries[os.getpid()] = Nursery()
    return found


def _begun(descriptors: list[int]) -> tuple[Nursery, int]:
    """A reader's nursery and its pid."""
    found = nursery()
    try:
        return found, found.begin(descriptors)
    except OSError:
        found.close()  # somebody ended it
    found = nursery()
    return found, found.begin(descriptors)


@dataclass
class Reading:
    """One file on its way through a reader.

    `stream` opens its bytes; `size` is of a small one, which is in memory. `on_read` hears of each read's length.
    `enough`: nobody wants the rest. `answered`: how many of its records have been. `fed` is done when nothing of it
    will be read any more, with what its source raised.
    """

    order: Order
    loading: Loading
    stream: Callable[[], ByteStream]
    size: int | None = None
    on_read: Callable[[int], None] = lambda _: None
    enough: bool = False
    answered: int = 0
    fed: Future[None] | None = None

    def again(self) -> "Reading":
        """The same small file, for another reader."""
        return Reading(self.order, self.loading, self.stream, self.size)


class Reader:
    """One reader and the thread that feeds it. `readings`: what it was given and has not answered yet."""

    def __init__(self, schema: RecordSchema | None) -> None:
        self.readings: deque[Reading] = deque()
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self.answers, theirs_out = _pipe()
        theirs_in, self._requests = _pipe()
        with tempfile.TemporaryFile(prefix="headwater-") as one, tempfile.TemporaryFile(prefix="headwater-") as other:
            self._nursery, self._pid = _begun([theirs_in, theirs_out, one.fileno(), other.fileno()])
        os.close(theirs_in)
        os.close(theirs_out)
        if schema is not None:
            self._feeder.submit(self._write, messages.frame(messages.SCHEMA, orjson.dumps(schema)))

    def give(self, reading: Reading) -> None:
        """One more file to read."""
        self.readings.append(reading)
        reading.fed = self._feeder.submit(self._send, reading)

    def answer(self, interrupt: Callable[[], None]) -> Judged | Done | None:
        """The next message about the first of its readings; None if it has died. Raises `Garbled`."""

        def wait() -> None:
            while not ready([self], _WAIT_MILLISECONDS):
                interrupt()

        head = messages.read(self.answers, messages.MESSAGE.size, wait)
        if len(head) < messages.MESSAGE.size:
            return None
        kind, *sizes = messages.MESSAGE.unpack(head)
        if sum(sizes) > messages.LONGEST_MESSAGE_BYTES:
            raise Garbled
        parts = [bytes(messages.read(self.answers, size, wait)) for size in sizes]
        if [*map(len, parts)] != sizes:
            return None
        answer = messages.parse(kind, *parts)
        reading = self.readings[0]
        if isinstance(answer, Judged):
            if not answer.is_of(reading.order.load_id, reading.order.first + reading.answered):
                raise Garbled
            reading.answered += answer.parsed
        return answer

    def end(self) -> int | None:
        """End it, whatever it does; its wait status, None where nobody knows it any more."""
        for reading in self.readings:
            reading.enough = True
        os.close(self.answers)
        # By the thread that writes to it: before, its number must not be another file's. A read that hangs ends with
        # its own timeout; nobody waits for it here.
        self._feeder.submit(os.close, self._requests)
        self._feeder.shutdown(wait=False)
        with contextlib.suppress(OSError):
            return self._nursery.end(self._pid)
        return None

    # From here on, on the thread.

    def _write(self, pieces: Sequence[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died; whoever listens to it notices
            messages.write(self._requests, pieces)

    def _send(self, reading: Reading) -> None:
        pieces = messages.frame(messages.FILE, reading.order.as_json())
        last = messages.BROKEN_OFF
        try:
            with contextlib.closing(reading.stream()) as stream:
                while not reading.enough and (piece := stream.read(READ_BYTES)):
                    reading.on_read(len(piece))
                    self._write([*pieces, *messages.frame(messages.DATA, piece)])
                    pieces = []
            last = messages.END
        finally:
            self._write([*pieces, *messages.frame(last)])


def ready(readers: list[Reader], milliseconds: int) -> list[Reader]:
    """Those that have something to say, or have died."""
    poll = select.poll()
    for one in readers:
        poll.register(one.answers, select.POLLIN)
    found = {descriptor for descriptor, _ in poll.poll(milliseconds)}
    return [one for one in readers if one.answers in found]


def why(status: int | None) -> Refusal:
    """What to say of a file whose reader ended in the middle of it."""
    if status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        return Refusal(
            None,
            messages.TOO_COMPLEX,
            "Reading this file took more than 30 s of a processor without a record. Write it in another form.",
        )
    return Refusal(
        None, DIED, "The process that read this file ended in the middle of it; the next sync reads it again."
    )


def _pipe() -> tuple[int, int]:
    ours, theirs = os.pipe()
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ours, theirs
