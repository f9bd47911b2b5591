"""`HEADWATER_HOME`: where the local stack keeps data, logs, keys and the record of what runs."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater_cli import files, processes
from headwater_cli.errors import Failure
from headwater_cli.processes import Identity


@dataclass(frozen=True)
class Home:
    """The folder of one local stack."""

    path: Path

    @property
    def data(self) -> Path:
        """Of the embedded stores."""
        return self.path / "data"

    @property
    def logs(self) -> Path:
        """One file per service."""
        return self.path / "logs"

    @property
    def keys(self) -> Path:
        """0700; every file in it 0600."""
        return self.path / "keys"

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return self.path / "cache"

    @property
    def empty(self) -> Path:
        """The children's home: without anybody's profiles."""
        return self.path / "empty"

    @property
    def stack_file(self) -> Path:
        """`stack.json`: there exactly while the stack is ready."""
        return self.path / "stack.json"

    @property
    def processes_file(self) -> Path:
        """What the launcher started: the next one reads it if this one is killed."""
        return self.path / "processes.json"

    @property
    def lock_file(self) -> Path:
        """Held by the launcher; says which process that is."""
        return self.path / "lock"

    def make(self) -> None:
        """Make the folders that are missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.data, self.logs, self.cache, self.empty):
            folder.mkdir(exist_ok=True)
        self.keys.mkdir(mode=0o700, exist_ok=True)


def checkout() -> Path:
    """The folder with `pyproject.toml`, `migrations/` and the services.

    Raises:
        Failure: this is an installed package and the current folder is no checkout.
    """
    for candidate in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (candidate / "pyproject.toml").is_file() and (candidate / "migrations").is_dir():
            return candidate
    raise Failure("This is not a checkout of Headwater.", hint="Run it in the folder that holds pyproject.toml.")


def find() -> Home:
    """The home of this environment: `HEADWATER_HOME`, or `.headwater` in the checkout. It need not exist."""
    named = os.environ.get("HEADWATER_HOME")
    return Home(Path(named).expanduser().resolve() if named else checkout() / ".headwater")


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Hold the home for this process.

    Raises:
        Failure: another launcher holds it.
    """
    with home.lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = launcher(home)
            raise Failure(
                f"A stack runs in {home.path} already (pid {holder.pid if holder else 'unknown'}).",
                hint="./dev status shows it, ./dev down stops it. HEADWATER_HOME=<folder> makes room for another.",
            ) from None
        lock.truncate(0)
        lock.write(_identity_text(processes.identify(os.getpid())))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def launcher(home: Home) -> Identity | None:
    """The process that holds `home`, or None. Asks without taking the lock, so it never gets in the way."""
    try:
        identity = _identity(json.loads(home.lock_file.read_text()))
    except (FileNotFoundError, ValueError):
        return None
    return identity if processes.identify(identity.pid) == identity else None


def record_processes(home: Home, running: Mapping[str, Identity]) -> None:
    """Write down what runs; an empty mapping removes the file."""
    if running:
        shown = {name: {"pid": found.pid, "started": found.started} for name, found in running.items()}
        files.write_json(home.processes_file, shown)
    else:
        home.processes_file.unlink(missing_ok=True)


def recorded_processes(home: Home) -> dict[str, Identity]:
    """What the last launcher wrote down, running or not."""
    found: dict[str, Any] = files.read_json(home.processes_file) or {}
    return {name: _identity(value) for name, value in found.items()}


def read_stack(home: Home) -> dict[str, Any] | None:
    """The stack file, or None while no stack is ready. One that a killed launcher left behind does not count."""
    found: dict[str, Any] | None = files.read_json(home.stack_file)
    return found if launcher(home) is not None else None


def _identity(value: Mapping[str, Any]) -> Identity:
    return Identity(int(value["pid"]), str(value["started"]))


def _identity_text(identity: Identity | None) -> str:
    assert identity is not None  # this very process runs
    return json.dumps({"pid": identity.pid, "started": identity.started})
