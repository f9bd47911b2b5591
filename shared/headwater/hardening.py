"""What others on this machine may learn of a process of ours: nothing of its memory, alive or dead."""

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def seal() -> None:
    """No core dumps; on Linux no debugger of the same user either, and `/proc/<pid>/environ` and `mem` are root's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
