"""Postgres away, restarted, or gone between a commit and its answer."""

from pathlib import Path

import engines
import invariants
import pytest
from engines import CANARY, Engine

SYNC = {"files": 6, "records": 20, "broken": 1}


@pytest.mark.parametrize(
    ("point", "number"),
    [
        ("batch.written", 4),
        ("record.begun", 1),
        *(
            pytest.param(*moment, marks=pytest.mark.long)
            for moment in [("claim.begun", 1), ("batch.begun", 1), ("batch.written", 5), ("beat.begun", 1)]
        ),
    ],
)
def test_a_connection_that_is_cut(engine: Engine, point: str, number: int) -> None:
    """Every connection to Postgres is reset at that moment: the job ends as if nothing had been, and nobody crashed."""
    worker = engine.worker("bulk", failpoints=f"{point}=sleep,0.5@{number}")
    job_id = engine.post(engine.source(password=CANARY, pause_seconds=0.2, **SYNC), "sync")
    engine.until(lambda: worker.reached(point, number))
    engine.postgres.cut()
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"]) == ("partially_succeeded", 0)


@pytest.mark.parametrize(
    ("point", "number", "crashes"),
    [
        ("batch.committed", 5, 0),
        ("record.committed", 1, 0),
        *(
            pytest.param(*moment, marks=pytest.mark.long)
            for moment in [
                ("batch.committed", 1, 0),
                ("batch.committed", 4, 0),
                ("batch.written", 4, 0),
                ("record.begun", 1, 0),
                # Whoever cannot know that it claimed leaves the job to the clock.
                ("claim.committed", 1, 1),
            ]
        ),
    ],
)
def test_a_commit_whose_answer_is_lost(engine: Engine, point: str, number: int, crashes: int) -> None:
    """It happened, or not, and the worker cannot know: what it does then doubles nothing."""
    worker = engine.worker("bulk", failpoints=f"{point}=raise@{number}")
    job_id = engine.post(engine.source(**SYNC), "sync")
    engine.until(lambda: worker.reached(point, number))
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"]) == ("partially_succeeded", crashes)


@pytest.mark.long
def test_a_postgres_that_is_killed_and_started_again(tmp_path: Path) -> None:
    """SIGKILL in the middle of twenty syncs; no process of ours is restarted, and every job ends as it should."""
    with engines.on_own_stores(tmp_path) as (engine, stores):
        engine.ready()
        engine.worker("bulk")
        jobs = [engine.post(engine.source(pause_seconds=0.1, **SYNC), "sync") for _ in range(20)]
        engine.until(lambda: sum(engine.status(job_id) == "partially_succeeded" for job_id in jobs) > 3)
        stores.restart_postgres(engine)
        assert {engine.ended(job_id, seconds=90)["status"] for job_id in jobs} == {"partially_succeeded"}
        engine.settled()
        invariants.check(engine)
