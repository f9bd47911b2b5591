"""Schedulers that die between two steps, and several at once."""

import pytest
from engines import Engine

SYNC = {"files": 6, "records": 20, "broken": 1}


@pytest.mark.parametrize("point", ["dispatch.marked", pytest.param("dispatch.rung", marks=pytest.mark.long)])
def test_a_scheduler_that_dies_around_a_ring(engine: Engine, point: str) -> None:
    """The job counts as rung and nobody has, or somebody has: the next scheduler rings in time, the job runs once."""
    engine.kill("scheduler")
    dying = engine.scheduler(failpoints=f"{point}=die")
    job_id = engine.submit(engine.source())
    engine.until(lambda: dying.reached(point) and not dying.alive)
    engine.worker()
    engine.scheduler()
    assert (engine.ended(job_id)["status"], engine.outcomes(job_id)) == ("succeeded", ["succeeded"])


@pytest.mark.parametrize("point", ["reap.committed", pytest.param("reap.begun", marks=pytest.mark.long)])
def test_a_scheduler_that_dies_around_a_lost_lease(engine: Engine, point: str) -> None:
    """Taken back once and told once, whoever does it."""
    worker = engine.worker("bulk", failpoints="claim.committed=freeze batch.written=die")
    job_id = engine.post(engine.source(**SYNC), "sync")
    engine.until(lambda: worker.reached("claim.committed"))
    # Before the child dies: its worker ends the lease at once, and the plain scheduler would take it back.
    engine.kill("scheduler")
    engine.until(lambda: worker.thaw() or worker.reached("batch.written"))
    dying = engine.scheduler(failpoints=f"{point}=die")
    engine.until(lambda: dying.reached(point) and not dying.alive)
    engine.scheduler()
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"], row["attempt"]) == ("partially_succeeded", 1, 2)


@pytest.mark.long
def test_three_schedulers_do_what_one_does(engine: Engine) -> None:
    """Two hundred jobs, a third of which lose a lease: each is rung for and taken back as if there were one."""
    for _ in range(2):
        engine.scheduler()
    worker = engine.worker(slots=4, failpoints="record.begun=die:60")
    source = engine.source()
    jobs = [engine.submit(source, deadline_seconds=300) for _ in range(200)]
    engine.settled(150)
    assert worker.reached("record.begun", 60)
    rows = [engine.ended(job_id) for job_id in jobs]
    assert sum(row["crashes"] for row in rows) == 60
    assert {row["status"] for row in rows if row["crashes"] < 2} == {"succeeded"}
