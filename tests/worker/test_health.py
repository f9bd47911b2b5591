"""The health check of the worker image's containers."""

import socket
import subprocess
import sys

import pytest

from headwater import db
from headwater.db import Connection
from headwater.jobs import dispatching
from headwater_worker import health


def see_worker(connection: Connection, queue: str, *, host: str) -> None:
    """What a worker says of itself every few seconds."""
    db.run(connection, dispatching.worker_seen(name=f"{queue}@{host}:1", queue=queue, slots=1, version="0"))


def test_a_worker_that_was_seen_on_this_host_is_healthy(database: str, connection: Connection) -> None:
    """It said so within the last seconds."""
    see_worker(connection, "bulk", host=socket.gethostname())
    assert health.healthy(database, "bulk")


def test_another_hosts_worker_does_not_make_this_one_healthy(database: str, connection: Connection) -> None:
    """The queue is served, and this container does not serve it."""
    connection.execute("delete from worker")
    see_worker(connection, "bulk", host="elsewhere")
    assert not health.healthy(database, "bulk")


def test_a_worker_that_fell_silent_is_not_healthy(database: str, connection: Connection) -> None:
    """Its row stays for an hour; what counts is when it was seen."""
    see_worker(connection, "interactive", host=socket.gethostname())
    connection.execute("update worker set seen_at = now() - interval '21 seconds' where queue = 'interactive'")
    assert not health.healthy(database, "interactive")


@pytest.mark.parametrize("role", ["scheduler", "deliverer"])
def test_who_asks_all_the_time_is_healthy_while_it_does(database: str, role: str) -> None:
    """It has no row of its own; its connection is the trace."""
    before = health.healthy(database, role)
    with db.connect(database, application=f"headwater-{role}") as connection:
        connection.execute("select 1")
        during = health.healthy(database, role)
    assert (before, during) == (False, True)


@pytest.mark.parametrize("role", ["scheduler", "deliverer"])
def test_another_databases_scheduler_does_not_make_this_one_healthy(database: str, superuser: str, role: str) -> None:
    """Two deployments may share a server and a host."""
    with db.connect(superuser, application=f"headwater-{role}") as connection:
        connection.execute("select 1")
        assert not health.healthy(database, role)


def test_the_deliverers_check_needs_no_redis(database: str) -> None:
    """Its container is not told where one is."""
    done = subprocess.run(
        (sys.executable, "-m", "headwater_worker.health", "deliverer"),
        env={"HEADWATER_DATABASE_URL": database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_a_silent_worker_without_redis_only_waits(database: str, valkey: str, connection: Connection) -> None:
    """Redis away: exit code 0, for a restart would not help. Redis there: a silent worker is broken."""
    connection.execute("delete from worker")

    def ask(redis_url: str) -> int:
        own = {"HEADWATER_DATABASE_URL": database, "HEADWATER_REDIS_URL": redis_url}
        argv = (sys.executable, "-m", "headwater_worker.health", "bulk")
        return subprocess.run(argv, env=own, check=False).returncode

    assert (ask("redis://127.0.0.1:1/0"), ask(valkey)) == (0, 1)


def test_without_postgres_the_answer_is_unhealthy_and_shows_no_address(database: str) -> None:
    """An exit code and a sentence, no traceback with the URL in it."""
    done = subprocess.run(
        (sys.executable, "-m", "headwater_worker.health", "bulk"),
        env={"HEADWATER_DATABASE_URL": "postgresql://user:sesame@127.0.0.1:1/x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "Postgres does not answer.\n")
