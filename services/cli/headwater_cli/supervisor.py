"""Keeps the services of the local stack alive: starts them in order, starts again what dies, stops them in reverse.

One thread, one loop. It knows nothing of what the services are.
"""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from headwater_cli import processes
from headwater_cli.errors import Failure
from headwater_cli.processes import Command, Identity

_POLL_SECONDS: Final = 0.05
_FIRST_TRIES: Final = 3  # at the first start; a lost race for a port mends itself
_TAIL_LINES: Final = 8


@dataclass(frozen=True)
class Patience:
    """When a service that keeps dying is given up: at the `deaths`th death within `seconds`."""

    deaths: int = 5
    seconds: float = 30
    pause_seconds: float = 0.5  # before another start, when the last one is not that long ago


class Turn(StrEnum):
    """What happened to a service."""

    READY = "ready"
    DIED = "died"
    READY_AGAIN = "ready again"
    GIVEN_UP = "given up"
    LEFT_OUT = "left out"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Report:
    """One line for the person at the terminal."""

    service: str
    turn: Turn
    seconds: float = 0
    detail: str = ""


@dataclass(eq=False)
class Running:
    """A process of a service.

    Attributes:
        started: on the monotonic clock.
        log_offset: bytes that the log had before this process.
    """

    process: subprocess.Popen[bytes]
    command: Command
    started: float
    log_offset: int
    identity: Identity | None
    ready: bool = False

    @property
    def age_seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self.started

    def logged(self) -> bytes:
        """What this process has logged so far."""
        with self.command.log.open("rb") as log:
            log.seek(self.log_offset)
            return log.read()


@dataclass(frozen=True)
class Service:
    """Something to keep alive.

    Attributes:
        prepare: called before every start, so that what a crash left behind is cleared away.
        is_ready: polled until it is true. Must answer within a second.
    """

    name: str
    prepare: Callable[[], Command]
    is_ready: Callable[[Running], bool]
    detail: str = ""
    ready_within_seconds: float = 60


@dataclass(eq=False)
class _Kept:
    service: Service
    running: Running | None = None
    deaths: deque[float] = field(default_factory=deque)
    tries: int = 0  # until it was ready for the first time
    beside: bool = False  # nobody waits for it, and nothing fails without it
    start_at: float = 0
    given_up: bool = False


class Supervisor:
    """Starts, watches and stops services.

    Args:
        report: called for every turn of a service.
        changed: called when the set of processes changed, with the living ones.
        stopping: asked in every wait; true ends it.
        hurry: asked while stopping; true skips the grace.
        adopts: this process called `adopt_orphans` and has no other children: what a dead service leaves behind is
            ended with it.
    """

    def __init__(
        self,
        *,
        report: Callable[[Report], None],
        changed: Callable[[Mapping[str, Running]], None] = lambda _running: None,
        stopping: Callable[[], bool] = lambda: False,
        hurry: Callable[[], bool] = lambda: False,
        adopts: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self._report = report
        self._changed = changed
        self._stopping = stopping
        self._hurry = hurry
        self._adopts = adopts
        self._patience = patience or Patience()
        self._kept: dict[str, _Kept] = {}

    @property
    def running(self) -> dict[str, Running]:
        """The living processes by service, in the order of their first start."""
        return {name: kept.running for name, kept in self._kept.items() if kept.running is not None}

    def start(self, *services: Service) -> None:
        """Start `services` together and wait until all are ready, watching those that were started before.

        Raises:
            Failure: one is not ready in time, or keeps dying; with the end of its log.
        """
        waiting = [_Kept(service) for service in services]
        self._kept |= {kept.service.name: kept for kept in waiting}
        while waiting and not self._stopping():
            waiting = [kept for kept in waiting if not self._came_up(kept)]
            self.look()
            time.sleep(_POLL_SECONDS)

    def start_beside(self, service: Service) -> None:
        """Start `service` without waiting for it. If it ends before it was ready, it is left out, and that is said."""
        kept = _Kept(service, beside=True)
        self._kept[service.name] = kept
        self._spawn(kept)

    def _came_up(self, kept: _Kept) -> bool:
        """One look at a service that has not been ready yet; starts it, if it does not run."""
        service = kept.service
        if kept.running is None:
            kept.tries += 1
            self._spawn(kept)
        running = kept.running
        assert running is not None
        if running.process.poll() is not None:
            code = self._buried(kept)
            if kept.tries == _FIRST_TRIES:
                raise _failure(service, running.command.log, f"ended while starting ({_ending(code)})")
        elif service.is_ready(running):
            running.ready = True
            self._report(Report(service.name, Turn.READY, running.age_seconds, service.detail))
        elif running.age_seconds > service.ready_within_seconds:
            raise _failure(service, running.command.log, f"not ready after {service.ready_within_seconds:.0f} s")
        return running.ready

    def watch(self) -> None:
        """Look after all services until `stopping`."""
        while not self._stopping():
            self.look()
            time.sleep(_POLL_SECONDS)

    def look(self) -> None:
        """One round over the services that were ready once: notice deaths, start again, notice readiness."""
        for kept in tuple(self._kept.values()):
            running = kept.running
            if kept.beside and running is not None and not running.ready and not kept.deaths:
                self._look_beside(kept, running)
            elif running is not None and running.process.poll() is not None and (running.ready or kept.deaths):
                self._mourn(kept)
            elif running is None and kept.deaths and not kept.given_up and time.monotonic() >= kept.start_at:
                self._start_again(kept)
            elif running is not None and kept.deaths and not running.ready and kept.service.is_ready(running):
                running.ready = True
                self._report(Report(kept.service.name, Turn.READY_AGAIN, running.age_seconds, kept.service.detail))

    def _look_beside(self, kept: _Kept, running: Running) -> None:
        """One look at a service that nobody waits for and that has not been ready yet."""
        service = kept.service
        if running.process.poll() is not None:
            said = running.logged().decode(errors="replace").strip().splitlines()[-1:]
            code = self._buried(kept)
            kept.given_up = True
            self._report(Report(service.name, Turn.LEFT_OUT, detail="".join(said) or _ending(code)))
        elif service.is_ready(running):
            running.ready = True
            self._report(Report(service.name, Turn.READY, running.age_seconds, service.detail))

    def stop(self) -> None:
        """Stop everything, the last started first, and wait for it."""
        for kept in reversed(self._kept.values()):
            running, kept.running = kept.running, None
            kept.given_up = True
            if running is None:
                continue
            before = time.monotonic()
            code = processes.end(running.process, running.command, hurry=self._hurry)
            self._end_orphans()
            killed = code == -signal.SIGKILL
            detail = f"killed, it did not stop within {running.command.grace_seconds:.0f} s" if killed else ""
            self._report(Report(kept.service.name, Turn.STOPPED, time.monotonic() - before, detail))
        self._kept.clear()
        self._changed({})

    def _spawn(self, kept: _Kept) -> None:
        command = kept.service.prepare()
        offset = command.log.stat().st_size if command.log.exists() else 0
        process = processes.spawn(command)
        if command.log.stat().st_size < offset:  # the old log was set aside
            offset = 0
        kept.running = Running(process, command, time.monotonic(), offset, processes.identify(process.pid))
        self._changed(self.running)

    def _buried(self, kept: _Kept) -> int:
        """Clear away a dead process with all that it started. Returns its exit code."""
        assert kept.running is not None
        code = processes.end(kept.running.process, kept.running.command)
        kept.running = None
        self._end_orphans()
        self._changed(self.running)
        return code

    def _end_orphans(self) -> None:
        if self._adopts:
            processes.kill_children(but=[running.process.pid for running in self.running.values()])

    def _mourn(self, kept: _Kept) -> None:
        self._count_death(kept, _ending(self._buried(kept)))

    def _count_death(self, kept: _Kept, how: str) -> None:
        now = time.monotonic()
        last = kept.deaths[-1] if kept.deaths else 0.0
        kept.deaths.append(now)
        while kept.deaths[0] < now - self._patience.seconds:
            kept.deaths.popleft()
        kept.given_up = len(kept.deaths) >= self._patience.deaths
        turn = Turn.GIVEN_UP if kept.given_up else Turn.DIED
        if kept.given_up:
            how = f"{how}, for the {len(kept.deaths)}th time within {self._patience.seconds:.0f} s"
        kept.start_at = now if now - last > self._patience.pause_seconds * 2 else now + self._patience.pause_seconds
        self._report(Report(kept.service.name, turn, detail=how))

    def _start_again(self, kept: _Kept) -> None:
        try:
            self._spawn(kept)
        except Failure as failure:
            self._count_death(kept, failure.message)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _failure(service: Service, log: Path, what: str) -> Failure:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return Failure(f"{service.name}: {what}.", hint="\n".join((f"The end of {log}:", *(f"  {line}" for line in lines))))
