"""Named points in the code at which a test ends, freezes or breaks the process. Unset, they do nothing.

    HEADWATER_FAILPOINTS="claim.committed=die:2 batch.begun=freeze@3 record.begun=raise beat.sent=sleep,1.5"

`POINT=ACTION[,ARGUMENT][:TIMES][@FIRST]`, separated by blanks. `die` is SIGKILL and `freeze` SIGSTOP, to the process
itself; `raise` raises `psycopg.OperationalError`, as when Postgres goes away; `sleep` takes seconds. It happens the
FIRST time that any process is at the point, counted over all of them, and TIMES in all (both 1 unless said). Up to the
last of these, each time leaves a file `POINT.N` in HEADWATER_FAILPOINTS_DIR, with the pid in it, made before anything
happens: by it a test learns where a process is.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

POINTS: Final = frozenset(
    {
        "submit.begun", "submit.committed",
        "claim.begun", "claim.committed",
        "beat.begun", "beat.sent",
        "batch.begun", "batch.written", "batch.committed",
        "record.begun", "record.committed",
        "dispatch.marked", "dispatch.rung",
        "reap.begun", "reap.committed",
        "delivery.claimed", "delivery.answered",
        "tally.written", "tally.committed",
        "rotation.begun", "rotation.read", "rotation.written", "rotation.committed", "rotation.deleted",
        "rotation.rewrapped",
    }
)  # fmt: skip


@dataclass(frozen=True)
class _Armed:
    """What happens at one point, `times` times from the `first` on."""

    act: Callable[[], None]
    times: int
    first: int
    folder: Path

    def reach(self, point: str) -> None:
        for number in range(1, self.first + self.times):
            try:
                with (self.folder / f"{point}.{number}").open("x") as mark:
                    mark.write(str(os.getpid()))
            except FileExistsError:
                continue
            if number >= self.first:
                self.act()
            return


def reach(point: str) -> None:
    """The process is at `point`."""
    if _armed and (armed := _armed.get(point)) is not None:
        armed.reach(point)


def read(environment: Mapping[str, str]) -> dict[str, _Armed]:
    """What the environment arms, by point. Raises `ValueError` for a point or an action that does not exist."""
    armed = {}
    for entry in environment.get("HEADWATER_FAILPOINTS", "").split():
        point, _, order = entry.partition("=")
        if point not in POINTS:
            raise ValueError(f"HEADWATER_FAILPOINTS: there is no point {point!r}")
        order, _, first = order.partition("@")
        action, _, times = order.partition(":")
        folder = Path(environment["HEADWATER_FAILPOINTS_DIR"])
        armed[point] = _Armed(_action(action), int(times or 1), int(first or 1), folder)
    return armed


def _action(text: str) -> Callable[[], None]:
    name, _, argument = text.partition(",")
    match name:
        case "die":
            return lambda: os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            return lambda: os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            return _break
        case "sleep":
            seconds = float(argument)
            return lambda: time.sleep(seconds)
    raise ValueError(f"HEADWATER_FAILPOINTS: there is no action {name!r}")


def _break() -> None:
    raise psycopg.OperationalError("a failpoint")


_armed: Final = read(os.environ)
