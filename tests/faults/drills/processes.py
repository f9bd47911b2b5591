"""What the kernel says of a process."""

import os
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB_A_MIB: Final = 1024


def rss(pid: int) -> float:
    """Resident memory, MiB; 0 of a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields.get("VmRSS", "0").split()[0]) / _KIB_A_MIB


def cpu_seconds(pid: int) -> float:
    """Time on a processor so far."""
    # The name, which may have blanks, ends with the last parenthesis.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
