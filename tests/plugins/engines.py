"""The job engine as real processes, for tests that kill, freeze, cut off and restart them.

A scenario starts what it needs, does something evil at a known moment, and asks for the end:

    def test_a_worker_that_dies_in_a_batch(engine):
        engine.api()
        engine.scheduler()
        worker = engine.worker(failpoints="batch.written=die")
        job_id = engine.post(engine.source(files=5), "sync")
        engine.until(lambda: worker.reached("batch.written"))
        assert engine.ended(job_id)["crashes"] == 1
        invariants.check(engine)

`failpoints` are those of that process alone (headwater.failpoints), `database` and `redis` lead it through a wire of
its own (wire.to); `engine.postgres` and `engine.doorbell` are the wires that all others share. `post` submits through
HTTP as a careful client does and remembers what it was answered; `submit` writes the job straight into Postgres and
needs no API. `until` is the only way to wait: for a row, a mark of a failpoint, a line in a log. Everything is ended by
`stop`, whatever state it is in.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import httpx2
import making
import psycopg
import redis as redis_client
import scripted_source.spec
import wire
from psycopg import sql
from wire import Wire

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.connectors.spec import ConnectorSpec
from headwater.db import Connection
from headwater.jobs import dispatching, statements
from headwater.vault.providers import create_key_file
from headwater_cli import logins, migrate, stores
from headwater_cli.ports import free_port
from headwater_cli.stores import Store

FINAL: Final = ("succeeded", "partially_succeeded", "failed", "cancelled")
CANARY: Final = 'Canary7f3b91e2d4/"+ä%20'
"""A password that must show nowhere: easily found by its first part, and hard on whoever escapes it wrongly."""
CLOCKWORK: Final = {
    "HEADWATER_LEASE_SECONDS": "3",
    "HEADWATER_HEARTBEAT_SECONDS": "0.5",
    "HEADWATER_GRACE_SECONDS": "1",
    "HEADWATER_DRAIN_SECONDS": "0.5",
    "HEADWATER_RERING_SECONDS": "2",
    "HEADWATER_RETRY_BASE_SECONDS": "0.1",
}
"""What is minutes in production, in seconds."""

# A killed server loses nothing that it wrote to files: only a machine that dies needs the disk to have it. It must have
# written before it answers, though: with `synchronous_commit` off it forgets jobs that clients were answered for.
_SETTINGS: Final = {"fsync": "off"}
_PLUGINS: Final = Path(__file__).parent
_SPEC: Final[ConnectorSpec] = scripted_source.spec.SPEC
_ROUTES: Final = {"connection_test": "test", "file_listing": "files", "sync": "sync"}


class Refused(Exception):
    """The API refused a submit: status and problem."""


@dataclass(frozen=True)
class Process:
    """A process of ours: API, worker or scheduler. `points` is where its failpoints leave their marks.

    `plain`: without failpoints and wires of its own.
    """

    service: str
    popen: subprocess.Popen[bytes]
    log: Path
    points: Path
    plain: bool

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def children(self) -> list[int]:
        """The pids of a worker's children."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def reached(self, point: str, times: int = 1) -> int | None:
        """The pid of the process, it or a child of it, that was at the failpoint for the n-th time."""
        mark = self.points / f"{point}.{times}"
        return int(mark.read_text()) if mark.exists() and mark.read_text() else None

    def kill(self) -> None:
        """SIGKILL; a worker's children die with it."""
        self.thaw()
        self.popen.kill()
        self.popen.wait()

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and wait for its end. Returns the exit code."""
        self.popen.terminate()
        return self.popen.wait(seconds)

    def freeze(self) -> None:
        """SIGSTOP it and its children."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT them."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in [self.pid, *self.children()]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class Engine:
    """Processes to start and jobs to submit; `settings` are environment variables for all processes.

    `database` and `redis_url` lead straight to the stores, past the wires `postgres` and `doorbell`.
    `answers`: for each Idempotency-Key that `post` sent, the job it was answered with, None while without an answer.
    """

    database: str
    superuser: str
    redis_url: str
    postgres: Wire
    doorbell: Wire
    connection: Connection
    organization: CreatedOrganization
    project_id: UUID
    settings: dict[str, str]
    pepper_file: Path
    folder: Path
    api_port: int = field(default_factory=free_port)
    processes: list[Process] = field(default_factory=list)
    answers: dict[str, UUID | None] = field(default_factory=dict)
    _client: httpx2.Client | None = None

    # Processes.

    def api(self, **options: Any) -> Process:
        """Start the API and wait until it answers; it has the same address each time. Options as for `start`."""
        process = self.start("api", "headwater_api", **options)
        self.until(lambda: process.alive and self.is_served())
        return process

    def worker(self, queue: str = "interactive", slots: int = 2, **options: Any) -> Process:
        """Start a worker and wait until it says that it is there. Options as for `start`."""
        process = self.start("worker", "headwater_worker", "--queue", queue, "--slots", str(slots), **options)
        self.until(lambda: self.one("select from worker where name like %s", f"%:{process.pid}") is not None)
        return process

    def scheduler(self, **options: Any) -> Process:
        """Start a scheduler. Options as for `start`."""
        return self.start("scheduler", "headwater_worker.scheduler", **options)

    def deliverer(self, **options: Any) -> Process:
        """Start a deliverer, which has a worker's login. Options as for `start`."""
        return self.start("deliverer", "headwater_worker.deliverer", **options)

    def start(
        self,
        service: Literal["api", "worker", "scheduler", "deliverer"],
        module: str,
        *argv: str,
        failpoints: str = "",
        database: str | None = None,
        redis: str | None = None,
        **settings: str,
    ) -> Process:
        """Start a process with failpoints and settings of its own; `database` and `redis` are URLs through a wire."""
        name = f"{service}_{len(self.processes)}"
        points, temporary = self.folder / f"{name}.points", self.folder / f"{name}.tmp"
        points.mkdir()
        temporary.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(_PLUGINS),
            "TMPDIR": str(temporary),
            "HEADWATER_DATABASE_URL": making.as_service(
                database or self.postgres.url, "worker" if service == "deliverer" else service
            ),
            "HEADWATER_REDIS_URL": redis or self.doorbell.url,
            "HEADWATER_FAILPOINTS": failpoints,
            "HEADWATER_FAILPOINTS_DIR": str(points),
            **(self._of_api if service == "api" else {}),
            **self.settings,
            **settings,
        }
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", module, *argv], env=environment, stdout=output, stderr=output
            )
        plain = not (failpoints or database or redis or settings)
        self.processes.append(Process(service, popen, log, points, plain))
        return self.processes[-1]

    def alive(self, service: str) -> list[Process]:
        """The processes of a service that have not ended."""
        return [process for process in self.processes if process.service == service and process.alive]

    def kill(self, *services: str) -> None:
        """SIGKILL every process of these services."""
        for service in services:
            for process in self.alive(service):
                process.kill()

    def ready(self) -> None:
        """One plain API and one plain scheduler run, whatever ran before; that one has found Redis."""
        for service, start in (("api", self.api), ("scheduler", self.scheduler)):
            if len(self.alive(service)) != 1 or not self.alive(service)[0].plain:
                self.kill(service)
                start()
        scheduler = self.alive("scheduler")[0]
        self.until(lambda: "scheduler.redis_found" in scheduler.log.read_text())

    def stop(self) -> None:
        """End what runs."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self.kill("api", "scheduler", "worker", "deliverer")

    # Jobs.

    def source(self, *, password: str | None = None, **config: Any) -> UUID:
        """A scripted data source; `password` is sealed as its credentials."""
        source_id = making.make_source(self.connection, self.organization.organization_id, self.project_id, config)
        if password is not None:
            making.put_credentials(
                self.connection, self.organization.organization_id, source_id, _SPEC,
                config={"type": "scripted", **config}, secrets={"password": password},
            )  # fmt: skip
        return source_id

    def submit(self, source_id: UUID, kind: str = "connection_test", **changes: Any) -> UUID:
        """A job straight into Postgres, that nobody rings for but the scheduler."""
        answer = making.submit(self.connection, self.organization, self.project_id, source_id, kind, **changes)
        job_id = UUID(answer["job"]["id"])
        db.run(self.connection, dispatching.unring([job_id]))
        return job_id

    def post(self, source_id: UUID, kind: str = "connection_test", *, seconds: float = 60, **body: Any) -> UUID:
        """Submit through HTTP: the same request with the same key until it is answered with a job; its id.

        Raises `Refused` for what the API will not do however often it is asked.
        """
        key, deadline = ids.new().hex, time.monotonic() + seconds
        self.answers[key] = None
        while True:
            with suppress(httpx2.TransportError):
                answer = self.send(source_id, kind, key, **body)
                if answer.status_code in (200, 202):
                    job_id = ids.decode("job", answer.json()["id"])
                    self.answers[key] = job_id
                    return job_id
                if answer.status_code < 500:
                    del self.answers[key]
                    raise Refused(answer.status_code, answer.text)
            if time.monotonic() > deadline:
                raise AssertionError(f"not submitted within {seconds} s\n{self.log_tail()}")
            time.sleep(0.05)

    def send(self, source_id: UUID, kind: str, key: str, **body: Any) -> httpx2.Response:
        """One request to start a job. Raises `TransportError` where the API is away."""
        path = f"projects/{ids.encode('proj', self.project_id)}/data-sources/{ids.encode('dsrc', source_id)}"
        return self.client.post(f"{path}/{_ROUTES[kind]}", json=body, headers={"Idempotency-Key": key})

    def cancel(self, job_id: UUID, reason: str = "no longer needed") -> httpx2.Response:
        """Ask the API to cancel the job."""
        return self.client.post(f"jobs/{ids.encode('job', job_id)}/cancel", json={"reason": reason})

    @property
    def client(self) -> httpx2.Client:
        """An admin of the organization, at the API."""
        if self._client is None:
            self._client = httpx2.Client(
                base_url=f"http://127.0.0.1:{self.api_port}/api/v1/",
                headers={"Authorization": f"Bearer {self.organization.api_key}"},
                timeout=30,
                trust_env=False,
            )
        return self._client

    # What there is to see.

    def status(self, job_id: UUID) -> str:
        """The job's status now."""
        row = self.one("select status from job where id = %s", job_id)
        assert row is not None
        return str(row["status"])

    def rung(self, job_id: UUID) -> bool:
        """Whether somebody has rung for the job."""
        return self.one("select from job where id = %s and rung_at is not null", job_id) is not None

    def outcomes(self, job_id: UUID) -> list[str | None]:
        """How each attempt of the job ended, None for one that goes on."""
        rows = self.connection.execute("select outcome from job_attempt where job_id = %s order by attempt", (job_id,))
        return [row["outcome"] for row in rows]

    def running(self, job_id: UUID, attempt: int = 1) -> None:
        """Wait until the job runs, in that attempt at least."""
        query = "select from job where id = %s and status = 'running' and attempt >= %s"
        self.until(lambda: self.one(query, job_id, attempt) is not None)

    def ended(self, job_id: UUID, seconds: float = 60) -> dict[str, Any]:
        """Wait for the job's end; its row."""
        self.until(lambda: self.status(job_id) in FINAL, seconds)
        row = self.one("select * from job where id = %s", job_id)
        assert row is not None
        return row

    def settled(self, seconds: float = 90) -> None:
        """Wait until every job has ended and the audit log is sealed; needs a scheduler."""
        unfinished = "select from job where status <> all(%s) limit 1"
        unsealed = (
            "select from audit_entry e where not exists (select from audit_chain c where c.entry_id = e.id) limit 1"
        )
        self.until(lambda: self.one(unfinished, list(FINAL)) is None and self.one(unsealed) is None, seconds)

    def reconnect(self) -> None:
        """Look again, at a Postgres that was restarted."""
        self.connection.close()
        self.connection = _looking_at(self.database)

    def until(self, true: Callable[[], Any], seconds: float = 60) -> None:
        """Wait until `true()`; looked at on every notice of a job, and four times a second."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s\n{self.log_tail()}")
            for _notice in self.connection.notifies(timeout=0.25, stop_after=1):
                pass

    def one(self, query: Any, *parameters: Any) -> dict[str, Any] | None:
        """The first row of a query, as the superuser."""
        return self.connection.execute(query, parameters).fetchone()

    def log(self) -> str:
        """Everything that the processes said."""
        return "\n".join(process.log.read_text() for process in self.processes)

    def log_tail(self) -> str:
        """The last lines of the processes that live or were started last, for a failing test."""
        return "\n".join(
            f"--- {process.log.name}\n" + "\n".join(process.log.read_text().splitlines()[-15:])
            for process in self.processes
            if process.alive or process in self.processes[-4:]
        )

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Cut every connection to Postgres but this one, and let nobody in until the block ends."""
        name = self.connection.info.dbname
        allow = sql.SQL("alter database {} allow_connections {}")
        with psycopg.connect(self.superuser, autocommit=True) as aside:
            aside.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
            try:
                aside.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> %s",
                    (name, self.connection.info.backend_pid),
                )
                yield
            finally:
                aside.execute(allow.format(sql.Identifier(name), sql.SQL("true")))

    @property
    def _of_api(self) -> dict[str, str]:
        return {"HEADWATER_API_PORT": str(self.api_port), "HEADWATER_PEPPER_FILE": str(self.pepper_file)}

    def is_served(self) -> bool:
        """Whether the API answers."""
        with suppress(httpx2.TransportError):
            return self.client.get("me").status_code == 200
        return False


@contextmanager
def at(
    *,
    database: str,
    superuser: str,
    valkey: str,
    organization: CreatedOrganization,
    master_key_file: Path,
    pepper_file: Path,
    folder: Path,
    **settings: str,
) -> Iterator[Engine]:
    """An engine with nothing running yet, its clockwork shortened; all it started is ended with the block."""
    with redis_client.Redis.from_url(valkey) as client:
        client.flushall()
    with (
        wire.to(database) as postgres,
        wire.to(valkey) as doorbell,
    ):
        connection = _looking_at(database)
        made = Engine(
            database=database,
            superuser=superuser,
            redis_url=valkey,
            postgres=postgres,
            doorbell=doorbell,
            connection=connection,
            organization=organization,
            project_id=making.make_project(connection, organization.organization_id),
            settings={
                "HEADWATER_MASTER_KEY_FILE": str(master_key_file),
                "HEADWATER_EGRESS_ALLOW": "127.0.0.0/8",
                "HEADWATER_LOG_FORMAT": "json",
                **CLOCKWORK,
                **settings,
            },
            pepper_file=pepper_file,
            folder=folder,
        )
        try:
            yield made
        finally:
            made.stop()
            made.connection.close()


@dataclass
class Stores:
    """A Postgres and a Valkey of an engine's own, which may be killed."""

    folder: Path
    postgres: Store
    valkey: Store
    settings: Mapping[str, str]

    def restart_postgres(self, engine: Engine) -> None:
        """SIGKILL it and start it again on its data."""
        self.postgres.process.kill()
        self.postgres.process.wait()
        self.postgres = stores.start_postgres(self.folder / "postgres", port=self.postgres.port, settings=self.settings)
        engine.reconnect()

    def empty_valkey(self) -> None:
        """SIGKILL it and start it again with nothing in it."""
        self.valkey.process.kill()
        self.valkey.process.wait()
        for file in (self.folder / "valkey").rglob("appendonly*/*"):
            file.unlink()
        self.revive_valkey()

    def revive_valkey(self) -> None:
        """Start it again on what it has left, after it was killed."""
        self.valkey.process.wait()
        self.valkey = stores.start_valkey(self.folder / "valkey", port=self.valkey.port)


@contextmanager
def on_own_stores(
    folder: Path, *, postgres: Mapping[str, str] = _SETTINGS, **settings: str
) -> Iterator[tuple[Engine, Stores]]:
    """An engine with nothing running yet, on stores of its own under `folder`; `postgres`: settings of that server."""
    for name in ("pepper", "master"):
        create_key_file(folder / name)
    own = Stores(
        folder,
        stores.start_postgres(folder / "postgres", settings=postgres),
        stores.start_valkey(folder / "valkey"),
        postgres,
    )
    try:
        url = own.postgres.url
        migrate.upgrade(url)
        logins.ensure(url, {service: making.as_service(url, service) for service in logins.SERVICES})
        database = own.postgres.admin_url.rpartition("/")[0] + "/" + url.rpartition("/")[2]
        (folder / "engine").mkdir()
        with at(
            database=database,
            superuser=database,
            valkey=own.valkey.url,
            organization=making.make_organization(database, folder / "pepper", folder / "master"),
            master_key_file=folder / "master",
            pepper_file=folder / "pepper",
            folder=folder / "engine",
            **settings,
        ) as engine:
            yield engine, own
    finally:
        own.valkey.stop()
        own.postgres.stop()


def _looking_at(database: str) -> Connection:
    connection = db.connect(database, application="tests")
    connection.execute(f"listen {statements.CHANNEL}")
    return connection
