"""What `./dev check` checks: formatting, lint, the imports between packages, types, lock files."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headwater_cli import locks


@dataclass(frozen=True)
class Check:
    """One check that was run; `output` is what it said."""

    name: str
    passed: bool
    seconds: float
    output: str


_TOOLS: Final = {
    "format": ("ruff", "format", "--check", "."),
    "lint": ("ruff", "check", "."),
    "imports": ("lint-imports",),
    "types": ("mypy",),
}


def run(checkout: Path) -> Iterator[Check]:
    """Run every check, one after another; a failed one does not keep the others from being run."""
    for name, argv in _TOOLS.items():
        before = time.monotonic()
        program = Path(sys.executable).with_name(argv[0])
        done = subprocess.run((str(program), *argv[1:]), cwd=checkout, capture_output=True, text=True, check=False)
        yield Check(name, done.returncode == 0, time.monotonic() - before, f"{done.stdout}{done.stderr}".strip())
    before = time.monotonic()
    found = locks.hosts(checkout)
    yield Check("lock files", not found, time.monotonic() - before, "\n".join(found))
