"""How the demo's processes hear that they shall stop."""

import signal
import socket


def told_to_stop() -> socket.socket:
    """A socket that can be read from once SIGTERM or SIGINT has come.

    Neither `sigwait` nor an event would do: Arrow has a thread of its own by now, and a signal that the
    system gives to that thread kills the process, or leaves the main thread asleep.
    """
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return told
