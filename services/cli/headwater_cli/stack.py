"""`./dev up`: the whole of Headwater on one machine, in the foreground, until it is told to stop."""

import dataclasses
import hashlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

from headwater_cli import files, home, leftovers, logins, outside, ports, processes, services, terminal
from headwater_cli.demo import fill, sources, state
from headwater_cli.demo.sources import DemoSource
from headwater_cli.demo.state import Ports
from headwater_cli.errors import Failure
from headwater_cli.home import Home
from headwater_cli.services import Plan
from headwater_cli.supervisor import Report, Running, Supervisor, Turn

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STEP_SECONDS: Final = 300


@dataclass(eq=False)
class _Wish:
    """What the person at the terminal asked for by signals: once to stop, twice to stop at once."""

    signals: int = 0

    def heard(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        self.signals += 1

    def stop(self) -> bool:
        """Stop?"""
        return self.signals > 0

    def hurry(self) -> bool:
        """Stop without grace?"""
        return self.signals > 1


@contextmanager
def _listening(wish: _Wish) -> Iterator[None]:
    before = {number: signal.signal(number, wish.heard) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def up(place: Home, *, demo: bool = True) -> None:
    """Start everything, stay until a signal says stop, stop everything.

    Raises:
        Failure: another stack holds `place`, or something does not start; what had started is stopped again.
    """
    place.make()
    processes.adopt_orphans()
    wish = _Wish()
    with home.locked(place), _listening(wish):
        leftovers.clear(place)
        terminal.head(f"Headwater starts in {_shown(place.path)}")
        launch = _Launch(place, wish)
        try:
            launch.run(demo=demo)
        finally:
            place.stack_file.unlink(missing_ok=True)
            if launch.supervisor.running:
                terminal.head("Stopping (once more Ctrl-C: at once)")
            launch.supervisor.stop()


class _Launch:
    """One run of the stack."""

    def __init__(self, place: Home, wish: _Wish) -> None:
        self._home = place
        self._wish = wish
        self._shown: dict[str, Any] | None = None  # what stands in stack.json, once everything is ready
        self._azure_ready = threading.Event()
        self.supervisor = Supervisor(report=self._report, changed=self._record, stopping=wish.stop, hurry=wish.hurry)

    def run(self, *, demo: bool) -> None:
        """Start in order, say where things are, watch."""
        database_url, redis_url = self._stores()
        plan = _plan(self._home, database_url, redis_url, demo=demo)
        for step in (self._migrate, self._make_keys):
            if not self._wish.stop():
                step(plan)
        first = None if self._wish.stop() else self._first(plan)
        self.supervisor.start(*services.after_stores(plan))
        if first is not None and not self._wish.stop() and not outside.accepts_key(plan.api_url, first["api_key"]):
            first = self._create_first(plan)
        if first is None or self._wish.stop():
            return
        self._shown = {
            "api_url": plan.api_url,
            "api_key": first["api_key"],
            "flower_url": plan.flower_url,
            "flower_user": services.FLOWER_USER,
            "flower_password": plan.flower_password,
            "database_url": plan.database_url,
            "redis_url": plan.redis_url,
            "organization_id": first["organization_id"],
            "project_id": first["project_id"],
        }
        self._record(self.supervisor.running)
        terminal.welcome(_addresses(plan, first["api_key"]))
        if plan.demo_ports is not None:
            self.supervisor.start_beside(services.demo_azure(plan, plan.demo_ports))
            self._fill_demo(plan, first)
        self.supervisor.watch()

    def _report(self, found: Report) -> None:
        terminal.report(found)
        if (found.service, found.turn) == ("demo_azure", Turn.READY):
            self._azure_ready.set()

    def _record(self, running: Mapping[str, Running]) -> None:
        """Keep both files true: what has to be ended if we are killed, and what others read."""
        identities = {name: found.identity for name, found in running.items() if found.identity is not None}
        home.record_processes(self._home, identities)
        if self._shown is not None and running and not self._wish.stop():
            pids = {name: found.process.pid for name, found in running.items()}
            files.write_json(self._home.stack_file, {**self._shown, "pids": pids})

    def _stores(self) -> tuple[str, str]:
        database_url = os.environ.get("HEADWATER_DATABASE_URL")
        redis_url = os.environ.get("HEADWATER_REDIS_URL")
        # Both are asked before anything starts: a mistake is known at once.
        if database_url:
            outside.require_postgres(database_url)
            terminal.line("postgres", "ready", detail=f"{outside.address(database_url)}, from HEADWATER_DATABASE_URL")
        if redis_url:
            outside.require_redis(redis_url)
            terminal.line("redis", "ready", detail=f"{outside.address(redis_url)}, from HEADWATER_REDIS_URL")
        if not database_url:
            service, prepared = services.embedded_postgres(self._home)
            self.supervisor.start(service)
            database_url = prepared.url
        if not redis_url:
            service, prepared = services.embedded_valkey(self._home)
            self.supervisor.start(service)
            redis_url = prepared.url
        return database_url, redis_url

    def _migrate(self, plan: Plan) -> None:
        self._step(plan, "migrations", ("headwater_cli.migrate",), {})

    def _make_keys(self, plan: Plan) -> None:
        if all(Path(file).exists() for file in (*plan.master_key.values(), *plan.pepper.values())):
            return
        self._step(plan, "keys", ("headwater_cli.admin", "create-keys"), {**plan.master_key, **plan.pepper})

    def _first(self, plan: Plan) -> dict[str, str] | None:
        """Organization, project and key of this database: the ones made at the first start, or new ones."""
        known: dict[str, str] | None = files.read_json(_first_file(plan))
        return known or self._create_first(plan)

    def _create_first(self, plan: Plan) -> dict[str, str]:
        argv = ("headwater_cli.admin", "create-organization", "--name", "Local", "--email", "you@localhost")
        first: dict[str, str] = json.loads(self._step(plan, "organization", argv, {**plan.master_key, **plan.pepper}))
        files.write_json(_first_file(plan), first)
        return first

    def _fill_demo(self, plan: Plan, first: Mapping[str, str]) -> None:
        """Fill the demo project beside the watch: the stack is usable meanwhile."""
        known = state.find(plan.demo_state)
        assert known is not None  # its server is ready, and wrote it first

        def failed(name: str, failure: Failure) -> None:
            if not self._wish.stop():  # else it was cut off, and goes on at the next start
                terminal.line("demo", "not filled", detail=f"{name}: {failure.message} {failure.hint}".strip())

        def found() -> Iterator[DemoSource]:
            yield from sources.without_azure(known)
            self._azure_ready.wait()
            yield sources.azure(known)

        def run() -> None:
            url, key, project = plan.api_url, first["api_key"], first["project_id"]
            fill.fill(url, key, project, found(), report=terminal.demo, failed=failed)

        threading.Thread(target=run, name="demo", daemon=True).start()

    def _step(self, plan: Plan, name: str, argv: tuple[str, ...], own: Mapping[str, str]) -> str:
        """Run a module to its end, in an environment of its own. Returns what it printed."""
        before = time.monotonic()
        command = services.module(self._home, argv[0], argv[1:], {**plan.owner, **own}, log=name)
        try:
            done = subprocess.run(
                command.argv,
                env=dict(command.environment),
                cwd=command.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_STEP_SECONDS,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{name}: not done after {_STEP_SECONDS} s.") from None
        command.log.write_text(done.stderr)
        if done.returncode != 0:
            last = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-8:])
            raise Failure(f"{name}: failed (exit code {done.returncode}).", hint=f"The end of {command.log}:\n{last}")
        terminal.line(name, "ready", seconds=time.monotonic() - before)
        return done.stdout


def _plan(place: Home, database_url: str, redis_url: str, *, demo: bool) -> Plan:
    api_port = _port("HEADWATER_API_PORT", 8000, taken=frozenset())
    return Plan(
        home=place,
        database_url=database_url,
        service_urls=_service_urls(place, database_url),
        redis_url=redis_url,
        api_port=api_port,
        flower_port=_port("HEADWATER_FLOWER_PORT", 5555, taken=frozenset({api_port})),
        demo_ports=_demo_ports(place) if demo else None,
        flower_password=_flower_password(place),
    )


def _port(name: str, default: int, *, taken: frozenset[int]) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise Failure(f"{name} is {text!r}, which is no port.", hint="A number from 1 to 65535; 0 takes any free one.")
    wanted = int(text)
    port = ports.preferred_or_next(wanted, taken=taken) if wanted else ports.free_port()
    if wanted not in (0, port):
        terminal.head(f"Port {wanted} is in use; {name.removeprefix('HEADWATER_').removesuffix('_PORT')} takes {port}")
    return port


def _demo_ports(place: Home) -> Ports:
    """The ports of the last time, where they are free: the demo's data sources point at them."""
    known = state.find(place.data / "demo.json")
    former = {} if known is None else known.ports()
    found: dict[str, int] = {}
    for name in (entry.name for entry in dataclasses.fields(Ports)):
        port = former.get(name)
        while port is None or port in found.values() or not ports.is_free(port):
            port = ports.free_port()
        found[name] = port
    return Ports(**found)


def _flower_password(place: Home) -> str:
    file = place.keys / "flower.password"
    if not file.exists():
        files.write_private(file, secrets.token_urlsafe(18))
    return file.read_text()


def _service_urls(place: Home, database_url: str) -> dict[logins.Service, str]:
    """The services' own logins. On a server of others their names are this home's, so that two homes can share it."""
    name = _database_name(place, database_url)
    file = place.keys / f"logins-{name}.json"
    passwords = files.read_json(file)
    if passwords is None:
        passwords = {service: secrets.token_urlsafe(24) for service in logins.SERVICES}
        files.write_json(file, passwords)
    own = hashlib.sha256(f"{place.path}{name}".encode()).hexdigest()[:8]
    return {
        service: logins.url_for(database_url, f"{logins.role(service)}_{own}", passwords[service])
        for service in logins.SERVICES
    }


def _first_file(plan: Plan) -> Path:
    """One file for each database that this stack ever used: a key of one is unknown to another."""
    return plan.home.keys / f"first-{_database_name(plan.home, plan.database_url)}.json"


def _database_name(place: Home, database_url: str) -> str:
    """A short name for the database, as parts of file names have it."""
    if place.data.joinpath("postgres.json").exists() and not os.environ.get("HEADWATER_DATABASE_URL"):
        return "embedded"
    parts = urlsplit(database_url)
    return hashlib.sha256(f"{parts.hostname}:{parts.port}{parts.path}".encode()).hexdigest()[:8]


def _addresses(plan: Plan, api_key: str) -> dict[str, str]:
    flower = f"{plan.flower_url}   user {services.FLOWER_USER}, password {plan.flower_password}"
    return {"API": plan.api_url, "Reference": f"{plan.origin}/docs", "API key": api_key, "Flower": flower}


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
