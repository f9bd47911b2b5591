"""The lock files: how they are compiled, and that none of them names a host."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headwater_cli.errors import Failure

# What each lock file is compiled from. The first constrains the others: that of `./dev bench`, and the images'.
LOCKS: Final = {
    "requirements.lock": ("pyproject.toml", "--extra", "all"),
    "bench/requirements.lock": ("pyproject.toml", "--extra", "bench"),
    "services/api/requirements.lock": ("pyproject.toml", "--extra", "api"),
    "services/worker/requirements.lock": ("pyproject.toml", "--extra", "worker", "--extra", "cli"),
    "services/build.lock": ("services/build.in",),
}
_HOST: Final = re.compile(r"https?://|--(?:extra-)?index-url|--find-links")
# A machine's own indexes and wheels must not reach a lock: their hashes are nobody else's.
_MACHINE: Final = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL")


def compile_all(checkout: Path) -> Iterator[str]:
    """Compile every lock file anew; pins that still fit stay. Gives the name of each when it is done.

    Raises:
        Failure: uv found no solution; with its words.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _MACHINE}
    for name, sources in LOCKS.items():
        argv = [
            *(sys.executable, "-m", "uv", "pip", "compile", "-q", "--universal", "--generate-hashes"),
            *("--no-header", "--no-annotate", "--python-version", "3.11"),
            *sources,
            *(() if name == "requirements.lock" else ("-c", "requirements.lock")),
            *("-o", name),
        ]
        done = subprocess.run(
            argv,
            cwd=checkout,
            env={**environment, "PIP_CONFIG_FILE": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failure(f"{name} cannot be compiled.", hint=done.stderr.strip())
        yield name


def hosts(checkout: Path) -> list[str]:
    """Every line of a lock file that names a host, as `file:line: text`.

    Looked at: `*.lock`, `requirements*.txt` and `package-lock.json` outside hidden folders and `node_modules`.
    """
    return [
        f"{path.relative_to(checkout)}:{number}: {line.strip()}"
        for path in _lock_files(checkout)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _HOST.search(line)
    ]


def _lock_files(checkout: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(checkout):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "node_modules")
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix == ".lock" or path.match("requirements*.txt") or name == "package-lock.json":
                yield path
