"""Redis away, dark, empty or full of what nobody sent: it changes when a job runs, and nothing else."""

import random
import time
from pathlib import Path

import engines
import invariants
import pytest
import redis
from celery import Celery
from engines import Engine

from headwater import ids


@pytest.mark.parametrize("mode", ["reset", pytest.param("blackhole", marks=pytest.mark.long)])
def test_no_request_waits_for_a_redis_that_is_away(engine: Engine, mode: str) -> None:
    """Submits are answered, and the jobs run when it is back."""
    engine.worker()
    source = engine.source()
    engine.ended(engine.post(source))
    engine.doorbell.mode = mode
    began = time.monotonic()
    jobs = [engine.post(source) for _ in range(5)]
    assert time.monotonic() - began < 5
    engine.doorbell.mode = "pass"
    assert {engine.ended(job_id)["status"] for job_id in jobs} == {"succeeded"}


def test_a_worker_comes_back_soon_however_long_redis_was_away(engine: Engine) -> None:
    """It knocks every two seconds, and not more rarely the longer it has waited."""
    worker = engine.worker()
    engine.doorbell.mode = "reset"
    engine.until(lambda: worker.log.read_text().count("Trying again in 2.00 seconds") >= 3)
    engine.doorbell.mode = "pass"
    assert engine.ended(engine.post(engine.source()))["status"] == "succeeded"


@pytest.mark.long
def test_a_redis_that_goes_dark_in_the_middle_of_a_job_stops_no_job(engine: Engine) -> None:
    """The running job ends meanwhile, and the worker hears the next ring."""
    engine.worker(slots=1)
    job_id = engine.post(engine.source(files=5000, records=0, pause_seconds=0.5), "file_listing")
    engine.running(job_id)
    engine.doorbell.mode = "blackhole"
    assert engine.ended(job_id)["attempt"] == 1
    engine.doorbell.mode = "pass"
    assert engine.ended(engine.post(engine.source()))["status"] == "succeeded"


@pytest.mark.long
def test_a_redis_that_comes_back_empty_loses_no_job(tmp_path: Path) -> None:
    """Killed with a full queue and started on nothing: the scheduler notices, and rings for all of them again."""
    with engines.on_own_stores(tmp_path) as (engine, stores):
        engine.ready()
        source = engine.source()
        jobs = [engine.post(source) for _ in range(40)]
        with redis.Redis.from_url(engine.redis_url) as client:
            engine.until(lambda: client.llen("interactive") >= 4)
        stores.empty_valkey()
        engine.until(lambda: engine.log().count("scheduler.redis_found") == 2)
        engine.worker()
        assert {engine.ended(job_id)["status"] for job_id in jobs} == {"succeeded"}
        engine.settled()
        invariants.check(engine)


def test_a_ring_that_is_lost_is_made_again(engine: Engine) -> None:
    """Redis forgets one message and nothing else happens: after a while the scheduler rings once more."""
    job_id = engine.post(engine.source())
    with redis.Redis.from_url(engine.redis_url) as client:
        engine.until(lambda: client.delete("interactive"))
    engine.worker()
    assert engine.ended(job_id)["status"] == "succeeded"


def test_messages_that_come_often_and_in_any_order_run_each_job_once(engine: Engine) -> None:
    """Twenty rings for each of six jobs, shuffled, at two workers; among them rings for nothing."""
    source = engine.source(files=500, records=0, pause_seconds=0.1)
    jobs = [engine.post(source, "file_listing") for _ in range(6)]
    rings = [[ids.encode("job", job_id)] for job_id in jobs] * 20
    rings += [[ids.encode("job", ids.new())], ["rubbish"], [], [{"job_id": 1}]] * 5
    random.shuffle(rings)
    publisher = Celery("forger", broker=engine.redis_url, set_as_current=False)
    with publisher.producer_or_acquire() as producer:
        for arguments in rings:
            publisher.send_task("headwater.file_listing", args=arguments, queue="interactive", producer=producer)
    publisher.close()
    engine.worker(slots=2)
    engine.worker(slots=2)
    assert [engine.ended(job_id)["attempt"] for job_id in jobs] == [1] * 6
