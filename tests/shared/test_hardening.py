"""What others on the machine may learn of a process of ours."""

import subprocess
import sys

import pytest

# 3 is PR_GET_DUMPABLE: 0 keeps debuggers of the same user away, and `/proc/<pid>/environ` and `mem` with them.
PROGRAM = """
import ctypes, os, resource
from headwater import hardening

def shown():
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE)

hardening.seal()
print(*shown(), flush=True)
if not os.fork():
    print(*shown(), flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only cores are prevented")
def test_no_debugger_and_no_core_has_its_memory_nor_its_childrens() -> None:
    """Tests that run as root could read both all the same: asked is what the kernel was told."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0 0 0", "0 0 0"]
