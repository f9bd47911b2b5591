"""What the services are told, and what is kept from them."""

import dataclasses
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headwater_cli import logins, ports, services
from headwater_cli.demo.state import Ports
from headwater_cli.home import Home
from headwater_cli.services import Plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        home=Home(tmp_path),
        database_url="postgresql://headwater:one@127.0.0.1:1/headwater",
        service_urls={
            service: f"postgresql://{service}:{service}-password@127.0.0.1:1/headwater" for service in logins.SERVICES
        },
        redis_url="redis://:two@127.0.0.1:2/0",
        api_port=8000,
        flower_port=5555,
        demo_ports=Ports(bucket=3, api=4, gcs=5, azure=6),
        flower_password="three",
    )


def _environments(plan: Plan) -> dict[str, dict[str, str]]:
    started = services.after_stores(plan)
    return {service.name: dict(service.prepare().environment) for service in started}


def test_the_api_never_learns_where_the_master_key_is(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from us and not from the caller's environment."""
    monkeypatch.setenv("HEADWATER_MASTER_KEY_FILE", "/somewhere")
    holders = [name for name, found in _environments(plan).items() if "HEADWATER_MASTER_KEY_FILE" in found]
    assert holders == ["worker_interactive", "worker_bulk", "deliverer"]


def test_only_the_api_learns_where_the_pepper_is(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is taken over cannot make API keys."""
    monkeypatch.setenv("HEADWATER_PEPPER_FILE", "/somewhere")
    holders = [name for name, found in _environments(plan).items() if "HEADWATER_PEPPER_FILE" in found]
    assert holders == ["api"]


def test_each_service_logs_in_as_itself_and_nobody_as_the_owner(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is for migrations and admin; its URL, and what makes logins, stays with the launcher."""
    monkeypatch.setenv("HEADWATER_API_DATABASE_URL", "unwanted")
    found = _environments(plan)
    users = {
        name: urlsplit(own["HEADWATER_DATABASE_URL"]).username
        for name, own in found.items()
        if "HEADWATER_DATABASE_URL" in own
    }
    assert users == {
        "api": "api", "worker_interactive": "worker", "worker_bulk": "worker", "scheduler": "scheduler",
        "deliverer": "worker",
    }  # fmt: skip
    assert [name for own in found.values() for name in own if name.endswith("_DATABASE_URL") and "API" in name] == []


def test_generic_variables_are_not_passed_on(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """They speak of other systems: Celery would take its broker from one, psycopg its port from another."""
    for name in ("DATABASE_URL", "PGPORT", "CELERY_BROKER_URL", "AWS_PROFILE", "HTTPS_PROXY", "HEADWATER_API_KEY"):
        monkeypatch.setenv(name, "unwanted")
    values = {value for found in _environments(plan).values() for value in found.values()}
    assert "unwanted" not in values


def test_operators_settings_reach_the_workers(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local stack allows loopback only where the operator says nothing."""
    monkeypatch.delenv("HEADWATER_EGRESS_ALLOW", raising=False)
    untold = _environments(plan)["worker_bulk"]["HEADWATER_EGRESS_ALLOW"]
    monkeypatch.setenv("HEADWATER_EGRESS_ALLOW", "10.0.0.0/8")
    told = _environments(plan)["worker_bulk"]["HEADWATER_EGRESS_ALLOW"]
    assert (untold, told) == ("127.0.0.0/8,::1/128", "10.0.0.0/8")


def test_the_demos_token_endpoint_reaches_api_and_workers(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the operator named another."""
    name = "HEADWATER_GCS_TOKEN_URL"
    monkeypatch.delenv(name, raising=False)
    untold = {service: found[name] for service, found in _environments(plan).items() if name in found}
    monkeypatch.setenv(name, "http://127.0.0.1:9/token")
    assert untold == dict.fromkeys(("api", "worker_interactive", "worker_bulk"), "http://127.0.0.1:5/token")
    assert _environments(plan)["worker_bulk"][name] == "http://127.0.0.1:9/token"


def test_the_demos_folder_is_allowed_beside_the_operators(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs stay."""
    monkeypatch.setenv("HEADWATER_LOCAL_FILES_ROOTS", "/srv/data")
    told = _environments(plan)["worker_bulk"]["HEADWATER_LOCAL_FILES_ROOTS"]
    assert told == f"/srv/data:{plan.demo_files}"


def test_without_the_demo_nothing_of_it_is_told(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its endpoint nor its folder, and its process is not started."""
    for name in ("HEADWATER_GCS_TOKEN_URL", "HEADWATER_LOCAL_FILES_ROOTS"):
        monkeypatch.delenv(name, raising=False)
    found = _environments(dataclasses.replace(plan, demo_ports=None))
    assert "demo" not in found
    assert [name for own in found.values() for name in own if name.endswith(("TOKEN_URL", "FILES_ROOTS"))] == []


def test_no_secret_stands_in_an_argument(plan: Plan) -> None:
    """`ps` shows arguments to everybody on the machine."""
    shown = " ".join(part for service in services.after_stores(plan) for part in service.prepare().argv)
    assert [secret for secret in ("one", "two", "three") if f":{secret}" in shown] == []


def test_a_taken_port_gives_way_to_the_next_free_one() -> None:
    """Somebody else's server is neither asked nor disturbed."""
    port = ports.free_port()
    with socket.create_server(("127.0.0.1", port)):
        chosen = ports.preferred_or_next(port)
    assert chosen > port
    assert ports.preferred_or_next(port) == port


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_free_port_is_given_to_nobody_else() -> None:
    """Neither by the kernel to a connection, nor to another launcher; this one never gets it twice."""
    found = {ports.free_port() for _ in range(50)}
    lowest, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    source = f"from headwater_cli import ports; print(ports.preferred_or_next({min(found)}))"
    other = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert (len(found), max(found) < int(lowest), int(other.stdout) in found) == (50, True, False)


def test_two_launchers_at_one_moment_take_two_ports() -> None:
    """Neither listens yet, and still the second one takes the next."""
    port = next(port for port in iter(lambda: random.randrange(30_000, 32_000), None) if ports.is_free(port))
    source = f"from headwater_cli import ports; print(ports.preferred_or_next({port}), flush=True); input()"
    launchers = [
        subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    chosen = [int(launcher.stdout.readline()) for launcher in launchers if launcher.stdout is not None]
    for launcher in launchers:
        launcher.communicate("\n")
    assert len(set(chosen)) == 2
    assert port in chosen


def _up(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "headwater_cli", "up"),
        env={"PATH": os.environ["PATH"], "HEADWATER_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("HEADWATER_DATABASE_URL", "postgresql://me:verysecret@127.0.0.1:{port}/headwater"),
        ("HEADWATER_REDIS_URL", "redis://:verysecret@127.0.0.1:{port}/0"),
    ],
)
def test_a_named_server_that_does_not_answer_is_a_loud_error(tmp_path: Path, name: str, url: str) -> None:
    """Nothing embedded is started instead, and the password is not printed."""
    port = ports.free_port()
    done = _up(tmp_path / "home", **{name: url.format(port=port)})
    assert done.returncode == 1
    assert f"{name} is set, and 127.0.0.1:{port} does not answer." in done.stderr
    assert "verysecret" not in done.stdout + done.stderr
    assert not (tmp_path / "home/data/postgres").exists()


def test_a_named_server_that_refuses_the_password_is_said_to(tmp_path: Path, postgres: str) -> None:
    """Another cause, another sentence."""
    password = urlsplit(postgres).password or ""
    done = _up(tmp_path / "home", HEADWATER_DATABASE_URL=postgres.replace(password, "verysecret"))
    assert done.returncode == 1
    assert "refuses this user or password" in done.stderr
    assert "verysecret" not in done.stdout + done.stderr
