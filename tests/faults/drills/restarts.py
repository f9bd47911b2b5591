"""Rolling restarts under load: processes are stopped as a deployment stops them, one after another, and replaced."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Final
from uuid import UUID

import invariants
from engines import FINAL, Process

from drills.figures import Figure
from drills.ground import Ground

_WORKERS: Final = (("interactive", 3), ("bulk", 2), ("interactive", 3))
_ENDS: Final = (0, -signal.SIGTERM)  # uvicorn hands the signal on when it has served what was open
_PAUSE_SECONDS: Final = 0.2
# Longer than a stopping worker waits, so that most that it holds go back to the queue.
_LONG: Final = {"files": 8, "records": 5, "pause_seconds": 1.0}
_LISTED: Final = {"files": 5000, "records": 0, "pause_seconds": 1.5}


def rolling_restarts(ground: Ground) -> list[Figure]:
    """SIGTERM to workers, scheduler and API in turn while jobs come all the time, some with one attempt only."""
    engine = ground.engine
    running = {("api", 0): ground.api(), ("scheduler", 0): ground.scheduler()}
    running |= {("worker", number): worker for number, worker in enumerate(ground.workers(_WORKERS))}
    quick = [engine.source() for _ in range(4)]
    listed = [engine.source(**_LISTED) for _ in range(4)]
    synced = [engine.source(**_LONG) for _ in range(4)]
    stopped: list[float] = []
    single: list[UUID] = []
    with _load(ground, quick, listed, synced):
        for number, place in enumerate(islice(cycle(list(running)), ground.restarts), start=1):
            # With no attempt left, a hand-over that counted would fail it.
            single.append(ground.long(listed[number % len(listed)], "file_listing", max_attempts=1))
            began = ground.now()
            code = running[place].stop(seconds=30)
            assert code in _ENDS, f"{place} ended with {code}\n{engine.log_tail()}"
            stopped.append((ground.now() - began).total_seconds())
            running[place] = _start(ground, place)
            if number % 10 == 0:
                ground.say(f"{number} of {ground.restarts} restarts, {len(engine.answers)} jobs")
    engine.settled(120)
    invariants.check(engine)
    return [Figure("restart: a process has ended", stopped), *_counted(ground, single)]


def _start(ground: Ground, place: tuple[str, int]) -> Process:
    match place:
        case "api", _:
            return ground.api()
        case "scheduler", _:
            return ground.scheduler()
        case _, number:
            return ground.worker(*_WORKERS[number])


@contextmanager
def _load(ground: Ground, quick: list[UUID], listed: list[UUID], synced: list[UUID]) -> Iterator[None]:
    """Jobs through the API, all the time, from a client that asks again until it is answered."""
    enough = threading.Event()
    turns = cycle(
        [(quick, "connection_test", {})] * 8 + [(listed, "file_listing", {}), (synced, "sync", {"full": True})]
    )
    broken: list[BaseException] = []

    def submit() -> None:
        try:
            for number, (sources, kind, body) in enumerate(turns):
                if enough.wait(_PAUSE_SECONDS):
                    return
                ground.engine.post(sources[number // 10 % len(sources)], kind, seconds=60, **body)
        except BaseException as error:
            broken.append(error)

    thread = threading.Thread(target=submit, name="load")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
    if broken:
        raise broken[0]


def _counted(ground: Ground, single: list[UUID]) -> list[Figure]:
    engine = ground.engine
    answered = {job_id for job_id in engine.answers.values() if job_id is not None}
    row = engine.one(
        """
        select count(*) as jobs, count(*) filter (where status = 'failed') as failed,
               count(*) filter (where status = any(%s)) as ended, sum(crashes) as crashes,
               sum(interruptions) as interruptions, sum(attempt - interruptions - 1) as counted
        from job where id = any(%s)
        """,
        list(FINAL),
        [*answered, *single],
    )
    assert row is not None
    ground.say(f"{row['jobs']} jobs, {row['interruptions']} attempts were handed back")
    assert row["interruptions"], "no attempt was handed back: nothing is shown"
    nothing = {"max": 0.0}
    return [
        Figure("restarts: jobs failed", [row["failed"]], unit="", goals=nothing),
        Figure("restarts: jobs lost", [len(answered) + len(single) - row["ended"]], unit="", goals=nothing),
        Figure("restarts: attempts counted though handed back", [row["counted"]], unit="", goals=nothing),
    ]
