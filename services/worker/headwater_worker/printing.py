"""What is printed in a child, by a connector, a driver or a library in C: lines of the log, without secrets.

It goes through the same sink as every other line. The file descriptors are pipes to this process, so that nothing gets
around it; they never block, for who prints may hold what the reader needs. What is printed faster than it is read is
lost.
"""

import io
import os
import sys
import threading
from typing import BinaryIO, Final

from headwater import log, masking

# Of a line. It is masked before it is cut: half a secret is none that anybody knows.
_READ: Final = 64 * 1024
_SHOWN: Final = 8 * 1024

_log = log.get(__name__)


class _Printed(io.TextIOBase):
    """Text that Python prints, logged by line."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, begun = (self._begun + text).split("\n")
        self._begun = begun[:_READ]
        for line in lines:
            _say(line)
        return len(text)

    def flush(self) -> None:
        begun, self._begun = self._begun, ""
        _say(begun)


def capture() -> None:
    """From now on, what this process prints is logged; the log goes where it went. In a child, after the fork."""
    log.write_to(os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8"))
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    for printed in (1, 2):
        os.dup2(writable, printed)
    os.close(writable)
    sys.stdout = sys.stderr = _Printed()
    threading.Thread(target=_read, args=(os.fdopen(readable, "rb"),), name="printing", daemon=True).start()


def _read(stream: BinaryIO) -> None:
    continues = False
    while line := stream.readline(_READ):
        if not continues:
            _say(line.decode(errors="replace"))
        continues = not line.endswith(b"\n")


def _say(line: str) -> None:
    if text := line.rstrip():
        _log.info("process.printed", text=masking.masked(text)[:_SHOWN])
