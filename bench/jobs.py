"""What a job takes beside a task of Celery's that does nothing, on the same machine and store, with as many slots.

One at a time: from the submit to the answer of a client that waits for the end, as often as Celery's `delay` and `get`.
A burst: from the first of many jobs that wait in Postgres to the end of the last, beside as many Celery tasks that wait
in Redis. Ours are connection tests of sources that do nothing; every one is claimed, leased, recorded and told.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from engines import Engine, Stores

from bench import ground
from bench.measuring import Figure, Report, at_least, at_most, interleaved, median
from headwater import ids

_SLOTS: Final = 8  # as the interactive queue is deployed
_SOURCES: Final = 64
_ONE_BY_ONE: Final = 100
_BURST: Final = 2000
_ROUNDS: Final = 3
_SECONDS: Final = 300
_LOOK_SECONDS: Final = 0.02


def run(report: Report, *, quick: bool) -> None:
    """Times of one job, and jobs a second of many."""
    singles, burst, rounds = (5, 50, 1) if quick else (_ONE_BY_ONE, _BURST, _ROUNDS)
    caps = {"HEADWATER_RUNNING_PER_ORGANIZATION": "1000", "HEADWATER_RUNNING_PER_SOURCE": "1000"}
    with ground.engine(**caps) as (engine, stores), _celery(stores) as tasks:
        straight = {"database": stores.postgres.url, "redis": stores.valkey.url}
        sources = [engine.source() for _ in range(_SOURCES)]
        engine.api(**straight)
        engine.scheduler(**straight)
        engine.worker(slots=_SLOTS, **straight)
        engine.until(lambda: "scheduler.redis_found" in engine.alive("scheduler")[0].log.read_text())
        _wait_for(engine, sources, 10)  # connections are made and code is loaded
        seconds = interleaved(
            {
                "one": partial(_wait_for, engine, sources, singles),
                "celery one": partial(_call, tasks, singles),
                "burst": partial(_drain, engine, sources, burst),
                "celery burst": partial(_drain_celery, tasks, burst),
            },
            rounds=rounds,
        )
    took = {name: median(values) for name, values in seconds.items()}
    one, celery_one = took["one"] * 1000, took["celery one"] * 1000
    report.add(Figure("submit, run, woken", "ms p50", one, celery_one, "Celery", at_most(4)))
    rate, celery_rate = burst / took["burst"], burst / took["celery burst"]
    report.add(Figure(f"a burst of {burst:,}", "jobs/s", rate, celery_rate, "Celery", at_least(0.45)))


def _wait_for(engine: Engine, sources: list[UUID], count: int) -> float:
    """The median seconds of a submit and the wait for its end, one after another."""
    return median(_seconds(partial(_one, engine, sources[number % len(sources)])) for number in range(count))


def _one(engine: Engine, source_id: UUID) -> None:
    job = engine.send(source_id, "connection_test", ids.new().hex).json()
    while not job["done"]:
        job = engine.client.get(f"jobs/{job['id']}", params={"wait": 25}).json()


def _call(tasks: Any, count: int) -> float:
    return median(_seconds(lambda: tasks.nothing.delay().get(timeout=60)) for _ in range(count))


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _drain(engine: Engine, sources: list[UUID], count: int) -> float:
    """Seconds until so many jobs have ended, from the moment at which the dispatcher may see them."""
    with engine.connection.transaction():
        for number in range(count):
            engine.submit(sources[number % len(sources)])
        began = time.perf_counter()
    # By the indexes of what lives: to look through all that has ended would slow down what is measured.
    unfinished = """
        select from job where status in ('running', 'cancelling')
        union all select from job where status = 'queued' limit 1
    """
    while engine.one(unfinished) is not None:
        if time.perf_counter() - began > _SECONDS:
            raise TimeoutError(engine.log_tail())
        time.sleep(_LOOK_SECONDS)
    return time.perf_counter() - began


def _drain_celery(tasks: Any, count: int) -> float:
    """The same of Celery: a worker that is told to listen when all of them wait."""
    tasks.app.control.cancel_consumer("celery", reply=True, timeout=2)
    for _ in range(count):
        tasks.nothing_in_silence.delay()
    last = tasks.nothing.delay()
    began = time.perf_counter()
    tasks.app.control.add_consumer("celery")
    last.get(timeout=_SECONDS)
    return time.perf_counter() - began


@contextmanager
def _celery(stores: Stores) -> Iterator[Any]:
    """A worker of the baseline's, and the module of its tasks."""
    os.environ["HEADWATER_REDIS_URL"] = stores.valkey.url
    from bench import celery_noop  # noqa: PLC0415 - it is made for the store that was just started

    argv = (
        "-A", "bench.celery_noop", "--quiet", "worker", "--loglevel=ERROR", "--pool=prefork",
        f"--concurrency={_SLOTS}", "--without-mingle", "--without-gossip",
    )  # fmt: skip
    process = subprocess.Popen(  # noqa: S603 - every word of it stands above
        (sys.executable, "-m", "celery", *argv),
        cwd=Path(__file__).parents[1],
        env={"PATH": os.environ["PATH"], "HEADWATER_REDIS_URL": stores.valkey.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        celery_noop.nothing.delay().get(timeout=30)
        yield celery_noop
    finally:
        process.terminate()
        process.wait()
