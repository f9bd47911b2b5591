"""A driver that shouts its password: no log, no table, no message and no answer has it, in no spelling."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import invariants
import pytest
import redis
from engines import CANARY, Engine

from headwater import ids
from headwater.access.organizations import CreatedOrganization

SHOUTING = {
    ("shout", "file_listing"): "internal_error",
    ("shout_ours", "file_listing"): "permission_denied",
    ("shout_ours", "connection_test"): None,
    ("shout_panic", "file_listing"): "worker_crash",
}
"""How it behaves in which kind of job, and the code of that job's error."""


@dataclass(frozen=True)
class Loud:
    """What became of the jobs, and what was heard meanwhile."""

    engine: Engine
    jobs: dict[tuple[str, str], UUID]
    published: list[bytes]
    core_limits: dict[str, tuple[str, ...]]

    def said(self) -> str:
        """By the worker."""
        return next(process for process in self.engine.processes if process.service == "worker").log.read_text()


@pytest.fixture(scope="module")
def loud(
    make_engine: Callable[..., Any],
    database: str,
    organization: CreatedOrganization,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loud]:
    """All of these jobs at one worker, which logs whatever it is told and then stops."""
    with make_engine(
        database=database,
        organization=organization,
        folder=tmp_path_factory.mktemp("loud"),
        HEADWATER_LOG_LEVEL="debug",
    ) as engine:
        engine.ready()
        engine.deliverer()
        worker = engine.worker(slots=2)
        with overheard(engine) as published:
            jobs = {
                (manner, kind): engine.post(engine.source(fail=manner, password=CANARY), kind)
                for manner, kind in [*SHOUTING, ("surroundings", "file_listing")]
            }
            for job_id in jobs.values():
                engine.ended(job_id)
        limits = {process.service: _core_limits(process.pid) for process in engine.processes}
        worker.stop()
        yield Loud(engine, jobs, published, limits)


@contextmanager
def overheard(engine: Engine) -> Iterator[list[bytes]]:
    """Everything that is published in Redis meanwhile, such as what Flower hears."""
    heard: list[bytes] = []
    with redis.Redis.from_url(engine.redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as listening:
        listening.psubscribe(**{"*": lambda message: heard.append(message["data"])})
        thread = listening.run_in_thread(sleep_time=0.05, daemon=True)
        yield heard
        thread.stop()
        thread.join()


def _core_limits(pid: int) -> tuple[str, ...]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(tuple(line.split()[4:6]) for line in lines if line.startswith("Max core file size"))


def test_what_a_driver_shouts_was_heard(loud: Loud) -> None:
    """Or the other tests would find nothing because nothing was said."""
    said = loud.said()
    for event in ("process.printed", "thread.fault", "process.unraisable", "job.fault", "connecting with", "warnings"):
        assert event in said, event
    assert "[masked]" in said
    assert len(loud.published) > len(loud.jobs)


def test_the_password_is_in_no_log_no_table_and_no_key(loud: Loud) -> None:
    """Printed, logged, warned of, raised in a thread, chained, noted, in a group, by a finaliser, at exit."""
    (promise,) = (promise for promise in invariants.PROMISES if promise.name == "secrets")
    assert list(promise.broken(loud.engine)) == []


def test_the_password_is_in_no_answer_and_no_event(loud: Loud) -> None:
    """Neither for the user nor for Flower."""
    answers = [
        loud.engine.client.get(f"jobs/{ids.encode('job', job_id)}{rest}").content
        for job_id in loud.jobs.values()
        for rest in ("", "/attempts")
    ]
    said = b"".join([*answers, *loud.published])
    assert [spelling for spelling in invariants.spellings(CANARY) if spelling.encode() in said] == []


@pytest.mark.parametrize(("manner", "kind"), SHOUTING)
def test_the_user_sees_our_code(loud: Loud, manner: str, kind: str) -> None:
    """Whatever the driver raised."""
    row = loud.engine.one("select error from job where id = %s", loud.jobs[manner, kind])
    assert row is not None
    assert (row["error"] or {}).get("code") == SHOUTING[manner, kind]


def test_a_child_has_none_of_the_deployments_passwords_in_its_environment(loud: Loud) -> None:
    """Neither for a driver nor for a program that it starts."""
    (line,) = (line for line in loud.said().splitlines() if "surroundings:" in line)
    assert "PATH" in line
    assert "HEADWATER_" not in line
    assert "postgresql" not in line


def test_no_process_leaves_a_core(loud: Loud) -> None:
    """It would hold what was open at that moment."""
    assert loud.core_limits == dict.fromkeys(("api", "scheduler", "deliverer", "worker"), ("0", "0"))
