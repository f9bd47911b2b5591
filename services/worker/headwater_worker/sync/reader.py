"""Readers: the processes that look into strangers' files, so that a worker never has to.

`python -m headwater_worker.sync.reader` is the nursery. It starts with an empty environment, imports what all formats
need, reads nothing, and forks a reader for whoever asks over its control socket, in a few milliseconds. A reader has a
bounded memory, can open no file and no socket, is ended when it works for a minute without a result, and dies with the
nursery, which dies with its worker. Two files without a name are given to it for what must be read from its end.

The nursery is asked for two things: `b` with four descriptors (what the reader reads, what it writes, its two files)
is answered with a pid; `e` with a pid ends that reader and is answered with its wait status.
"""

import contextlib
import encodings
import gc
import importlib
import os
import pkgutil
import resource
import signal
import socket
import sys
import traceback
import zoneinfo
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

import orjson
import pyarrow as pa

from headwater import hardening
from headwater.errors import HeadwaterError
from headwater_worker import environment
from headwater_worker.sync import messages
from headwater_worker.sync.answers import Answer
from headwater_worker.sync.formats import parquet, spooling, zstd  # noqa: F401 - a reader can load nothing later
from headwater_worker.sync.formats.base import Options, Refusal, Source, Unreadable
from headwater_worker.sync.judging import Judge
from headwater_worker.sync.messages import (
    BEGIN,
    DESCRIPTORS,
    MEMORY_BYTES,
    PID,
    RESULTLESS_SECONDS,
    TOO_COMPLEX,
    Done,
    Order,
)
from headwater_worker.sync.validation import Schema

_TOO_MUCH_MEMORY: Final = Refusal(
    None, TOO_COMPLEX, "Reading this file takes more than 768 MiB of memory. Write it in smaller parts."
)
_HELD_BYTES: Final = 256 * 1024
# What is read holds no cycles: records die when they are given out. To look through those at hand is for nothing.
_COLLECTED_EVERY: Final = 100_000


class _BrokenOff(HeadwaterError):
    """The source failed; the worker knows why."""


class _Incoming:
    """The bytes of the file at hand, as a connector's stream."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self._data = memoryview(b"")
        self._over: bytes | None = None
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end. Raises `_BrokenOff`."""
        if not self._data and self._over is None:
            kind, data = self._reader.next_frame()
            self._data, self._over = memoryview(data), None if kind == messages.DATA else kind
        if self._over == messages.BROKEN_OFF:
            raise _BrokenOff
        piece = self._data if size < 0 else self._data[:size]
        self._data = self._data[len(piece) :]
        self.taken += len(piece)
        return bytes(piece)

    def skip(self) -> None:
        """Whatever is left."""
        self._data = memoryview(b"")
        while self._over is None:
            kind, _ = self._reader.next_frame()
            self._over = None if kind == messages.DATA else kind

    def close(self) -> None:
        """Nothing to do."""


class Reader:
    """Reads file after file for one job."""

    def __init__(self, incoming: int, outgoing: int, spools: Sequence[int]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._spools = spools
        self._schema: Schema | None = None
        self._columns: dict[str, object] | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0

    def run(self) -> None:
        """Until there is nothing more to read."""
        spooling.given(self._spools)
        while frame := self.next_frame(last=True):
            kind, data = frame
            if kind == messages.SCHEMA:
                schema = orjson.loads(data)
                self._schema = Schema(schema)
                self._columns = schema if isinstance(schema, dict) else None
            else:
                self._read(Order.of(bytes(data)))

    def next_frame(self, *, last: bool = False) -> tuple[bytes, bytearray]:
        """The next frame; what was held back is given out before."""
        self._give_out()
        signal.setitimer(signal.ITIMER_PROF, RESULTLESS_SECONDS)
        head = messages.read(self._incoming, messages.FRAME.size)
        if len(head) < messages.FRAME.size:
            _end(0 if last else 1)
        kind, size = messages.FRAME.unpack(head)
        return kind, messages.read(self._incoming, size)

    def _read(self, order: Order) -> None:
        incoming, fault = _Incoming(self), None
        answer = None if order.looking is None else Answer(order.format, order.envelope, order.looking)
        options = Options(csv=order.csv, schema=self._columns, found=order.found)
        judge = Judge(self._schema, load_id=order.load_id, first=order.first)
        try:
            for block in (answer or order.format).blocks(Source(incoming), options):
                if block.entries or block.faults:
                    self._hold(messages.judged(judge.judge(block)))
                    signal.setitimer(signal.ITIMER_PROF, RESULTLESS_SECONDS)
        except Unreadable as error:
            fault = Refusal(error.line, error.code, error.message)
        except _BrokenOff:
            pass  # the worker knows
        except MemoryError:
            fault = _TOO_MUCH_MEMORY
        self._hold(
            messages.done(Done(options.details, incoming.taken, fault, None if answer is None else answer.told()))
        )
        self._give_out()
        incoming.skip()

    def _hold(self, pieces: Sequence[bytes]) -> None:
        """Many small answers make one write."""
        self._held += pieces
        self._held_bytes += sum(map(len, pieces))
        if self._held_bytes >= _HELD_BYTES:
            self._give_out()

    def _give_out(self) -> None:
        if self._held:
            messages.write(self._outgoing, self._held)
            self._held, self._held_bytes = [], 0


def _load_all() -> list[object]:
    """What Python and Arrow would otherwise open when a file names it: encodings, and time zones, to be kept."""
    for module in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(ImportError):  # some are of another system
            importlib.import_module(f"encodings.{module.name}")
    return [zone for name in zoneinfo.available_timezones() for zone in _zone(name)]


def _zone(name: str) -> Iterator[object]:
    with contextlib.suppress(pa.ArrowException):  # an old name, which Arrow does not know
        yield pa.lib.string_to_tzinfo(name)
        pa.array([0], pa.timestamp("s", tz=name)).cast(pa.string())


def lock_in() -> None:
    """From here on: bounded memory, no new descriptor, no core. What was begun before goes on."""
    hardening.seal()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _end(status: int) -> NoReturn:
    os._exit(status)


def _be_reader(descriptors: Sequence[int], nursery: int) -> NoReturn:
    status = 1
    try:
        environment.end_with(nursery)
        lock_in()
        gc.set_threshold(_COLLECTED_EVERY)
        Reader(descriptors[0], descriptors[1], descriptors[2:]).run()
        status = 0
    except BrokenPipeError:
        pass  # the worker has no use for it any more
    except BaseException as error:  # whatever it is, it must not come back into the nursery
        _tell(type(error), error, error.__traceback__)
    _end(status)


def _tell(kind: type[BaseException], _: BaseException, trace: TracebackType | None) -> None:
    """Where an error came from, without its words: they may quote the file."""
    print("".join(traceback.format_tb(trace)), kind.__name__, file=sys.stderr, flush=True)


def _begin(control: socket.socket, descriptors: Sequence[int]) -> int:
    nursery = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _be_reader(descriptors, nursery)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _ended(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def main() -> None:
    """The nursery: until its worker has gone."""
    environment.end_with(int(sys.argv[1]))
    hardening.seal()
    sys.excepthook = _tell
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _kept = _load_all()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=0) as control:
        while True:
            request, descriptors, _, _ = socket.recv_fds(control, 1 + PID.size, DESCRIPTORS)
            if not request:
                return
            pid = PID.unpack_from(request, 1)[0]
            control.sendall(PID.pack(_begin(control, descriptors) if request[:1] == BEGIN else _ended(pid)))


if __name__ == "__main__":
    main()
