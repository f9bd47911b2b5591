"""Child processes of the local stack: started in a session of their own, ended for certain, known again later.

A process is known by its pid together with its start time, so that a pid which the system gave to somebody else
in the meantime is never signalled.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LOG_BYTES: Final = 16 * 1024 * 1024  # a longer log is set aside when its service starts
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Command:
    """How to start a process, and how to end it."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    directory: Path = Path("/")
    user: int | None = None
    group: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10  # between `stop_signal` and SIGKILL


@dataclass(frozen=True)
class Identity:
    """A process that can be known again: its pid and when it started, in the system's own terms."""

    pid: int
    started: str


def base_environment() -> dict[str, str]:
    """What every child gets: where programs are, and a locale. Nothing else of the caller's environment."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def spawn(command: Command) -> subprocess.Popen[bytes]:
    """Start `command` in a new session, output appended to its log.

    On Linux the child gets its stop signal when the thread that called this dies, so call it from a thread that
    lives as long as the process.
    """
    _set_aside(command.log)
    with os.fdopen(os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(
            command.argv,
            env=dict(command.environment),
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=command.user,
            group=command.group,
            extra_groups=None if command.user is None else [],
            preexec_fn=_follow_parent(command.stop_signal),
        )


def _set_aside(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(log.suffix + ".1"))


def _follow_parent(signal_number: int) -> Callable[[], None] | None:
    """What the child runs before exec: ask for `signal_number` at the parent's death. Linux only."""
    if _LIBC is None:
        return None
    parent, prctl = os.getpid(), _LIBC.prctl

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal_number))
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return follow


def identify(pid: int) -> Identity | None:
    """The running process `pid`, or None. A zombie does not run."""
    if sys.platform == "linux":
        fields = _stat(pid)
        if fields is None or fields[0] == "Z":
            return None
        # Start times are counted from boot, so the boot belongs to them.
        return Identity(pid, f"{_boot()}/{fields[19]}")
    started = _ps("lstart=", pid)
    return Identity(pid, started) if started else None


def arguments(pid: int) -> str:
    """The command line of `pid`; empty if there is no such process."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    return _ps("args=", pid)


def _ps(field_name: str, pid: int) -> str:
    shown = subprocess.run(["ps", "-o", field_name, "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and up of /proc/<pid>/stat (proc(5)): the name before them may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def end(process: subprocess.Popen[bytes], command: Command, *, hurry: Callable[[], bool] = lambda: False) -> int:
    """Stop a child: its stop signal, then after the grace (or as soon as `hurry()`) SIGKILL for all of its session.

    Returns:
        The child's exit code, negative for a signal.
    """
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(command.stop_signal)
        _wait(lambda: process.poll() is not None, command.grace_seconds, hurry)
    kill_session(process.pid)
    return process.wait()


def end_stranger(identity: Identity, *, stop_signal: int, grace_seconds: float) -> bool:
    """Stop a process that an earlier launcher left behind, with its session. True if there was something to stop."""
    found = identify(identity.pid) == identity
    if found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, stop_signal)
        _wait(lambda: identify(identity.pid) != identity, grace_seconds, lambda: False)
    same_boot = sys.platform != "linux" or identity.started.startswith(f"{_boot()}/")
    leader = identify(identity.pid)
    if same_boot and (leader is None or leader == identity):
        found = kill_session(identity.pid) or found
        _wait(lambda: identify(identity.pid) != identity, 5, lambda: False)
    return found


def _wait(done: Callable[[], bool], seconds: float, hurry: Callable[[], bool]) -> None:
    limit = time.monotonic() + seconds
    while not done() and not hurry() and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)


def kill_session(session: int) -> bool:
    """SIGKILL every process of a session that `spawn` made: a worker's children outlive it otherwise.

    Returns:
        True if there was one.
    """
    if sys.platform != "linux":
        try:
            os.killpg(session, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    members = [pid for pid, fields in _all_stats() if fields[0] != "Z" and fields[3] == str(session)]
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(members)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that `kill_children` finds it. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_children(*, but: Collection[int]) -> None:
    """SIGKILL every child of this process whose pid is not among `but`, and wait for it. Linux only.

    For a process that adopts orphans: a worker's children have sessions of their own, and outlive a killed worker.
    """
    if sys.platform != "linux":
        return
    own = str(os.getpid())
    for pid in [pid for pid, fields in _all_stats() if fields[1] == own and pid not in but]:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None:
            yield int(entry.name), fields
