"""Stopping a stack from outside: one that runs in another terminal, or what a killed launcher left behind."""

import os
import signal
import time
from typing import Final

from headwater_cli import home, processes, terminal
from headwater_cli.errors import Failure
from headwater_cli.home import Home

_GRACE_SECONDS: Final = 5
_STOP_SECONDS: Final = 60


def clear(place: Home) -> None:
    """End what a killed launcher left running, and its stack file. The caller holds `place`."""
    place.stack_file.unlink(missing_ok=True)
    left = home.recorded_processes(place)
    found = []
    for name, identity in reversed(left.items()):
        stop_signal = signal.SIGINT if name == "postgres" else signal.SIGTERM
        if processes.end_stranger(identity, stop_signal=stop_signal, grace_seconds=_GRACE_SECONDS):
            found.append(name)
    if found:
        terminal.head(f"Ended what a killed launcher had left behind: {', '.join(reversed(found))}")
    home.record_processes(place, {})


def down(place: Home) -> bool:
    """Stop the stack of `place` from another terminal. True if there was one.

    Raises:
        Failure: it does not stop within a minute.
    """
    holder = home.launcher(place)
    if holder is None:
        if not home.recorded_processes(place):
            return False
        with home.locked(place):
            clear(place)
        return True
    os.kill(holder.pid, signal.SIGTERM)
    limit = time.monotonic() + _STOP_SECONDS
    while processes.identify(holder.pid) == holder:
        if time.monotonic() > limit:
            raise Failure(f"The stack (pid {holder.pid}) is still stopping after a minute.", hint="kill -9 ends it.")
        time.sleep(0.05)
    return True
