"""Free TCP ports on loopback."""

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 200
# Below what kernels give to connections, and to servers that ask for any port.
_NOBODYS: Final = range(20_000, 22_000)

_claimed: dict[int, int] = {}  # port: the descriptor whose lock says so, until this process ends


def free_port() -> int:
    """A free port that no process is given by chance, and other launchers are told that it is taken."""
    for _ in range(_TRIES):
        port = secrets.choice(_NOBODYS)
        if port not in _claimed and is_free(port) and _claim(port):
            return port
    # Here another process may still be given it first.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """True if a server could listen on `port` of loopback now. Nothing is connected to."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a former server that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def preferred_or_next(port: int, *, taken: frozenset[int] = frozenset()) -> int:
    """`port` if it is free, else the next free one above it; never one of `taken`."""
    for candidate in range(port, min(port + _TRIES, 65536)):
        if candidate not in taken and is_free(candidate) and _claim(candidate):
            return candidate
    return free_port()


def _claim(port: int) -> bool:
    """Keep `port` from other launchers: between choosing it and listening on it, theirs would find it free too."""
    if port in _claimed:
        return True
    path = Path(tempfile.gettempdir()) / f"headwater-port-{port}.lock"
    try:
        # Not to be created where it is somebody else's: Linux forbids that in a folder like /tmp.
        descriptor = os.open(path, os.O_RDONLY | (0 if path.exists() else os.O_CREAT), 0o644)
    except OSError:
        return True  # no lock to be had here: what is left is the small chance of a race
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _claimed[port] = descriptor
    return True
