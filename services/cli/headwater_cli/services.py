"""The services of the local stack: how each is started, with which settings, and when it is ready.

A child's environment is put together here from nothing. Of the caller's variables it gets those that start with
`HEADWATER_`, less the ones that belong to somebody else: the API never learns where the master key is, a worker
never where the pepper is.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headwater_cli import logins, outside, ports, processes
from headwater_cli.demo.state import Ports
from headwater_cli.home import Home
from headwater_cli.processes import Command
from headwater_cli.stores import Prepared, prepare_postgres, prepare_valkey
from headwater_cli.supervisor import Running, Service

SLOTS: Final = {"interactive": 4, "bulk": 2}
FLOWER_USER: Final = "headwater"
# Set per service below, or meant for a client of the API and not for its servers.
_NOT_INHERITED: Final = frozenset(
    f"HEADWATER_{name}"
    for name in (
        "DATABASE_URL",
        "API_DATABASE_URL",
        "WORKER_DATABASE_URL",
        "SCHEDULER_DATABASE_URL",
        "REDIS_URL",
        "MASTER_KEY_FILE",
        "PEPPER_FILE",
        "API_URL",
        "API_KEY",
        "API_PORT",
        "FLOWER_PORT",
        "FLOWER_USER",
        "FLOWER_PASSWORD",
        "ORGANIZATION_ID",
        "PROJECT_ID",
        "HOME",
    )
)


@dataclass(frozen=True)
class Plan:
    """Addresses, ports and keys of one run of the stack; `demo_ports` is None without the demo.

    `database_url` is the owner's, `service_urls` those of the services.
    """

    home: Home
    database_url: str = field(repr=False)
    service_urls: Mapping[logins.Service, str] = field(repr=False)
    redis_url: str = field(repr=False)
    api_port: int
    flower_port: int
    demo_ports: Ports | None
    flower_password: str = field(repr=False)

    @property
    def origin(self) -> str:
        """Where the API is, without its path."""
        return f"http://{ports.LOOPBACK}:{self.api_port}"

    @property
    def api_url(self) -> str:
        """Ends in `/api/v1`."""
        return f"{self.origin}/api/v1"

    @property
    def flower_url(self) -> str:
        """Flower's start page."""
        return f"http://{ports.LOOPBACK}:{self.flower_port}"

    @property
    def owner(self) -> dict[str, str]:
        """For migrations and admin: the database as its owner, and with which logins the services will come."""
        named = {logins.variable(service): url for service, url in self.service_urls.items()}
        return {"HEADWATER_DATABASE_URL": self.database_url, **named}

    def stores(self, service: logins.Service) -> dict[str, str]:
        """The settings that say to a service where the stores are."""
        return {"HEADWATER_DATABASE_URL": self.service_urls[service], "HEADWATER_REDIS_URL": self.redis_url}

    @property
    def master_key(self) -> dict[str, str]:
        """For workers and admin alone."""
        return {"HEADWATER_MASTER_KEY_FILE": str(self.home.keys / "master.key")}

    @property
    def pepper(self) -> dict[str, str]:
        """For the API and admin alone."""
        return {"HEADWATER_PEPPER_FILE": str(self.home.keys / "pepper")}

    @property
    def demo_state(self) -> Path:
        """Where the demo's servers keep their keys."""
        return self.home.data / "demo.json"

    @property
    def demo_files(self) -> Path:
        """The folder that the demo's source of local files reads."""
        return self.home.data / "demo-files"

    @property
    def gcs_tokens(self) -> dict[str, str]:
        """For API and workers: with the demo, its token endpoint, unless the operator named another."""
        if self.demo_ports is None or "HEADWATER_GCS_TOKEN_URL" in os.environ:
            return {}
        return {"HEADWATER_GCS_TOKEN_URL": f"http://{ports.LOOPBACK}:{self.demo_ports.gcs}/token"}

    @property
    def local_files(self) -> dict[str, str]:
        """For workers: with the demo, its folder beside those that the operator named."""
        if self.demo_ports is None:
            return {}
        named = os.environ.get("HEADWATER_LOCAL_FILES_ROOTS", "")
        return {"HEADWATER_LOCAL_FILES_ROOTS": ":".join(filter(None, (named, str(self.demo_files))))}


def environment(home: Home, own: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child whose own settings are `own`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("HEADWATER_") and name not in _NOT_INHERITED
    }
    return {
        **processes.base_environment(),
        # An empty folder: no profile of the caller's is found by whatever looks for one.
        "HOME": str(home.empty),
        # Whoever runs the stack on a laptop wants to reach what else runs there.
        "HEADWATER_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
        "HEADWATER_LOG_FORMAT": "json",
        "HEADWATER_UPLOADS_DIR": str(home.data / "uploads"),
        **inherited,
        **own,
    }


def module(home: Home, name: str, argv: tuple[str, ...], own: Mapping[str, str], *, log: str) -> Command:
    """A Python module of this installation as a command."""
    return Command(
        # -P: a file in the working directory never shadows a module.
        argv=(sys.executable, "-P", "-m", name, *argv),
        environment=environment(home, own),
        log=home.logs / f"{log}.log",
        directory=home.path,
    )


def embedded_postgres(home: Home) -> tuple[Service, Prepared]:
    """The embedded Postgres, on one port for as long as the stack runs."""
    log = home.logs / "postgres.log"
    return _store(lambda port: prepare_postgres(home.data / "postgres", port=port, log=log))


def embedded_valkey(home: Home) -> tuple[Service, Prepared]:
    """The embedded Valkey, on one port for as long as the stack runs."""
    log = home.logs / "valkey.log"
    return _store(lambda port: prepare_valkey(home.data / "valkey", port=port, log=log))


def _store(prepare: Callable[[int | None], Prepared]) -> tuple[Service, Prepared]:
    prepared = prepare(None)
    service = Service(
        name=prepared.name,
        prepare=lambda: prepare(prepared.port).command,
        is_ready=lambda running: prepared.is_ready(running.process.pid),
        detail=f"{ports.LOOPBACK}:{prepared.port}",
    )
    return service, prepared


def after_stores(plan: Plan) -> Iterator[Service]:
    """Everything that needs the stores, in the order of starting: what is started first is stopped last."""
    if plan.demo_ports is not None:
        # A sync of the demo that is running ends with its workers, not with its bucket.
        yield demo_sources(plan, plan.demo_ports)
    yield api(plan)
    for queue in SLOTS:
        yield worker(plan, queue)
    yield scheduler(plan)
    yield deliverer(plan)
    yield flower(plan)


def api(plan: Plan) -> Service:
    """The REST API."""
    own = {
        "HEADWATER_API_HOST": os.environ.get("HEADWATER_API_HOST", ports.LOOPBACK),
        "HEADWATER_API_PORT": str(plan.api_port),
        **plan.stores("api"),
        **plan.pepper,
        **plan.gcs_tokens,
    }
    command = module(plan.home, "headwater_api", (), own, log="api")
    return Service("api", lambda: command, lambda _: outside.answers(f"{plan.origin}/readyz"), plan.api_url)


def worker(plan: Plan, queue: str) -> Service:
    """The worker of one queue."""
    name = f"worker_{queue}"
    slots = SLOTS[queue]
    argv = ("--queue", queue, "--slots", str(slots))
    own = {**plan.stores("worker"), **plan.master_key, **plan.gcs_tokens, **plan.local_files}
    command = module(plan.home, "headwater_worker", argv, own, log=name)
    return Service(name, lambda: command, _seen(plan.database_url, queue), f"{slots} slots")


def _seen(database_url: str, queue: str) -> Callable[[Running], bool]:
    """Ready when the worker has been seen since its process was started; no two clocks are compared."""

    def is_ready(running: Running) -> bool:
        age = outside.worker_age_seconds(database_url, queue)
        return age is not None and age < running.age_seconds

    return is_ready


def scheduler(plan: Plan) -> Service:
    """The scheduler."""
    command = module(plan.home, "headwater_worker.scheduler", (), plan.stores("scheduler"), log="scheduler")
    return Service("scheduler", lambda: command, lambda running: b"scheduler.started" in running.logged())


def deliverer(plan: Plan) -> Service:
    """The deliverer of webhooks: it opens secrets, as a worker does."""
    own = {"HEADWATER_DATABASE_URL": plan.service_urls["worker"], **plan.master_key}
    command = module(plan.home, "headwater_worker.deliverer", (), own, log="deliverer")
    return Service("deliverer", lambda: command, lambda running: b"deliverer.started" in running.logged())


def flower(plan: Plan) -> Service:
    """Flower, read-only."""
    own = {
        "HEADWATER_REDIS_URL": plan.redis_url,
        "HEADWATER_FLOWER_PORT": str(plan.flower_port),
        "HEADWATER_FLOWER_USER": FLOWER_USER,
        "HEADWATER_FLOWER_PASSWORD": plan.flower_password,
    }
    command = module(plan.home, "headwater_worker.flower", (), own, log="flower")
    is_ready = f"{plan.flower_url}/healthcheck"
    return Service("flower", lambda: command, lambda _: outside.answers(is_ready), plan.flower_url)


def demo_sources(plan: Plan, demo: Ports) -> Service:
    """What most of the demo's data sources read."""
    argv = (
        *("--bucket-port", str(demo.bucket), "--api-port", str(demo.api), "--gcs-port", str(demo.gcs)),
        *("--azure-port", str(demo.azure), "--state", str(plan.demo_state), "--files", str(plan.demo_files)),
    )
    command = module(plan.home, "headwater_cli.demo", argv, {}, log="demo")
    where = f"{ports.LOOPBACK}: S3 {demo.bucket}, API {demo.api}, GCS {demo.gcs}"
    return Service("demo", lambda: command, lambda running: b"ready\n" in running.logged(), where)


def demo_azure(plan: Plan, demo: Ports) -> Service:
    """What the demo's source in Azure reads; started beside the others, because npm may have to bring it first."""
    argv = ("--port", str(demo.azure), "--state", str(plan.demo_state), "--cache", str(plan.home.cache))
    # npm finds its configuration and the machine's certificates by these.
    kept = {name: value for name, value in os.environ.items() if name.startswith(("NODE_EXTRA_CA", "npm_config_"))}
    own = kept | {"HOME": os.environ.get("HOME", str(plan.home.empty))}
    command = module(plan.home, "headwater_cli.demo.azure", argv, own, log="demo_azure")
    where = f"http://{ports.LOOPBACK}:{demo.azure}"
    return Service("demo_azure", lambda: command, lambda running: b"ready\n" in running.logged(), where)
