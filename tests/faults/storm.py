"""The long run: thousands of jobs while processes are killed, frozen and cut off at random, then the count.

What is random comes from the seed, except for how the machine interleaves it.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import engines
import httpx2
import invariants
import psycopg
import redis
from engines import CANARY, FINAL, Engine, Process, Refused, Stores

LIVE_AT_ONCE: Final = 300
_SUBMITTERS: Final = 4
_FAULT_SECONDS: Final = (0.5, 3.0)
_REPORT_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 300.0
_FROZEN_SECONDS: Final = (1.0, 6.0)  # a lease is 3 s
_WORKERS: Final = (("interactive", 3), ("interactive", 3), ("bulk", 2))
_ARMED: Final = (
    "claim.begun", "claim.committed", "batch.begun", "batch.written", "batch.committed", "record.begun",
    "record.committed", "beat.begun", "beat.sent",
)  # fmt: skip
# What a job may fail with when nothing but its surroundings is at fault.
_EXCUSED: Final = frozenset({"worker_crash", "deadline_exceeded", "database_unavailable"})


@dataclass
class Storm:
    """A run that makes `jobs` jobs under the faults that `seed` draws."""

    engine: Engine
    stores: Stores
    jobs: int
    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    made: set[UUID] = field(default_factory=set)
    joined: int = 0
    refused: int = 0
    cancels: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._room = threading.Semaphore(LIVE_AT_ONCE)
        self._ended = 0
        self._thaws: list[tuple[float, list[int]]] = []
        self._heals: list[tuple[float, Callable[[], None]]] = []
        self._workers: list[Process] = []
        self._is_over = threading.Event()
        make = self.engine.source
        records = {"files": 5, "records": 12, "broken": 1, "pause_seconds": 0.02}
        self._sources: list[tuple[str, UUID, dict[str, Any]]] = [
            *(("connection_test", make(password=CANARY), {}) for _ in range(8)),
            *(("file_listing", make(files=60, records=0, pause_seconds=0.05), {}) for _ in range(6)),
            *(("sync", make(password=CANARY, **records), {"full": number % 2 == 0}) for number in range(24)),
        ]

    def run(self, say: Callable[[str], None]) -> dict[str, int]:
        """Submit everything under faults, let it end, count: {what: how often}, all zero when nothing was broken.

        The first Ctrl-C ends the submits, and what was made until then is counted.
        """
        self._start()
        signal.signal(signal.SIGINT, self._stop_early)
        began = said = time.monotonic()
        with ThreadPoolExecutor(_SUBMITTERS) as threads:
            seeds = [self._random.random() for _ in range(_SUBMITTERS)]
            done = [threads.submit(self._submit, seed) for seed in seeds]
            while not all(each.done() for each in done):
                self._disturb()
                if time.monotonic() - said > _REPORT_SECONDS:
                    said = time.monotonic()
                    say(self._where(said - began))
            for each in done:
                each.result()
        self._calm()
        say(f"all are submitted after {time.monotonic() - began:.0f} s; the faults end, the rest of the jobs too")
        with suppress(AssertionError):
            self.engine.settled(_SETTLE_SECONDS)
        say(self._where(time.monotonic() - began))
        return self._count(say)

    def _start(self) -> None:
        self.engine.ready()
        self.engine.scheduler()
        self._workers = [self.engine.worker(queue, slots) for queue, slots in _WORKERS]

    def _stop_early(self, *_: Any) -> None:
        self._is_over.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _new_worker(self, number: int, failpoints: str = "") -> Process:
        queue, slots = _WORKERS[number]
        argv = ("--queue", queue, "--slots", str(slots))
        return self.engine.start("worker", "headwater_worker", *argv, failpoints=failpoints)

    # Submitting, in threads.

    def _submit(self, seed: float) -> None:
        mine = random.Random(seed)
        while len(self.made) < self.jobs and not self._is_over.is_set():
            if not self._room.acquire(timeout=1):
                continue
            kind, source_id, body = mine.choices(self._sources, [5] * 8 + [2] * 6 + [1] * 24)[0]
            try:
                job_id = self.engine.post(source_id, kind, seconds=300, priority=mine.randint(-2, 2), **body)
            except Refused:
                # The live sync of the source is just being cancelled.
                self.refused += 1
                self._room.release()
                continue
            with self._lock:
                self.joined += job_id in self.made
                self.made.add(job_id)
            if mine.random() < 0.05:
                time.sleep(mine.random())
                with suppress(httpx2.TransportError):
                    self.engine.cancel(job_id)
                    self.cancels += 1

    def _make_room(self) -> None:
        """For each job that ended, and each submit that joined a live one, another may come."""
        live = self._one("select count(*) as n from job where status <> all(%s)", list(FINAL))
        answered = sum(job is not None for job in self.engine.answers.copy().values())
        while live is not None and self._ended < answered - live["n"]:
            self._ended += 1
            self._room.release()

    # Faults, on the main thread.

    def _disturb(self) -> None:
        until = time.monotonic() + self._random.uniform(*_FAULT_SECONDS)
        while time.monotonic() < until:
            self._make_good()
            self._make_room()
            time.sleep(0.2)
        name = self._random.choices(list(_FAULTS), [weight for weight, _ in _FAULTS.values()])[0]
        self.faults[name] += 1
        _FAULTS[name][1](self)

    def _make_good(self) -> None:
        """Thaw and heal what is due, and start another where one has died of itself, as a supervisor does."""
        now = time.monotonic()
        for due, pids in [each for each in self._thaws if each[0] <= now]:
            self._thaws.remove((due, pids))
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for due, heal in [each for each in self._heals if each[0] <= now]:
            self._heals.remove((due, heal))
            heal()
        if not self.engine.alive("api"):
            self.engine.start("api", "headwater_api")
        for number, worker in enumerate(self._workers):
            if not worker.alive:
                self._workers[number] = self._new_worker(number)

    def _kill_child(self) -> None:
        if children := self._random.choice(self._workers).children():
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(children), signal.SIGKILL)

    def _kill_worker(self) -> None:
        """Its successor dies of itself, at a point that is drawn."""
        number = self._random.randrange(len(self._workers))
        self._workers[number].kill()
        order = self._random.choice(["die:2", "raise:3", "sleep,0.5:5"])
        failpoints = (
            f"{self._random.choice(_ARMED)}={order}@{self._random.randint(1, 30)}"
            if self._random.random() < 0.7
            else ""
        )
        self._workers[number] = self._new_worker(number, failpoints)

    def _freeze_child(self) -> None:
        if children := self._random.choice(self._workers).children():
            self._freeze([self._random.choice(children)])

    def _freeze_worker(self) -> None:
        worker = self._random.choice(self._workers)
        self._freeze([worker.pid, *worker.children()])

    def _freeze(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self._thaws.append((time.monotonic() + self._random.uniform(*_FROZEN_SECONDS), pids))

    def _stop_worker(self) -> None:
        """As a deployment does."""
        number = self._random.randrange(len(self._workers))
        stopping = self._workers[number]
        stopping.thaw()
        stopping.popen.terminate()
        self._heals.append((time.monotonic() + 30, lambda: stopping.alive and stopping.kill()))
        self._workers[number] = self._new_worker(number)

    def _kill_scheduler(self) -> None:
        self._random.choice(self.engine.alive("scheduler")).kill()
        point = self._random.choice(["dispatch.marked", "dispatch.rung", "reap.begun", "reap.committed"])
        self.engine.scheduler(failpoints=f"{point}=raise")

    def _kill_api(self) -> None:
        if not self.engine.is_served():
            return  # on a slow machine it would never come up
        self.engine.kill("api")
        point = self._random.choice(["submit.begun", "submit.committed"])
        self.engine.start("api", "headwater_api", failpoints=f"{point}=die")

    def _cut_postgres(self) -> None:
        self.engine.postgres.cut()

    def _lose_postgres(self) -> None:
        self._lose(self.engine.postgres, "reset")

    def _kill_postgres(self) -> None:
        self.stores.restart_postgres(self.engine)

    def _cut_redis(self) -> None:
        self.engine.doorbell.cut()

    def _lose_redis(self) -> None:
        self._lose(self.engine.doorbell, self._random.choice(["reset", "blackhole"]))

    def _flush_redis(self) -> None:
        with redis.Redis.from_url(self.engine.redis_url) as client:
            client.flushall()

    def _empty_redis(self) -> None:
        self.stores.empty_valkey()

    def _lose(self, line: Any, mode: str) -> None:
        line.mode = mode

        def heal() -> None:
            line.mode = "pass"

        self._heals.append((time.monotonic() + self._random.uniform(0.5, 4), heal))

    def _calm(self) -> None:
        """Everything runs, nothing is in its way."""
        self._thaws = [(0, pids) for _, pids in self._thaws]
        self._heals = [(0, heal) for _, heal in self._heals]
        self._make_good()
        self.engine.kill("worker")
        self.engine.ready()
        self._workers = [self.engine.worker(queue, slots) for queue, slots in _WORKERS]

    # What came of it.

    def _one(self, query: str, *parameters: Any) -> dict[str, Any] | None:
        try:
            return self.engine.one(query, *parameters)
        except psycopg.OperationalError:
            self.engine.reconnect()
            return None

    def _where(self, seconds: float) -> str:
        ended = self._one("select count(*) as n from job where status = any(%s)", list(FINAL)) or {"n": "?"}
        return f"{seconds:6.0f} s   {len(self.made)} made, {ended['n']} ended, {self.faults.total()} faults"

    def _count(self, say: Callable[[str], None]) -> dict[str, int]:
        broken = {promise.name: rows for promise, rows in invariants.broken(self.engine).items()}
        for promise in invariants.PROMISES:
            rows = broken.get(promise.name, [])
            say(f"  {promise.name:<11} {len(rows):>6} broken   {promise.words}")
            for row in rows[:3]:
                say(f"              {row}")
        failures = self.engine.connection.execute(
            "select coalesce(error ->> 'code', '') as status, count(*) as n from job where status = 'failed' group by 1"
        ).fetchall()
        attempts = self.engine.one(
            """
            select count(*) as all, count(*) filter (where outcome = 'lost') as lost,
                   count(*) filter (where outcome = 'released') as released,
                   count(*) filter (where outcome = 'retried') as retried from job_attempt
            """
        )
        statuses = self.engine.connection.execute(
            "select status, count(*) as n from job group by 1 order by 1"
        ).fetchall()
        say(
            f"jobs: {_pairs(statuses)}; joined: {self.joined}; refused: {self.refused}; asked to cancel: {self.cancels}"
        )
        say(f"failed as: {_pairs(failures)}")
        say(f"attempts: {attempts}")
        say(f"faults: {dict(self.faults.most_common())}")
        return {
            "jobs lost": len(broken.get("kept", [])),
            "jobs doubled": len(broken.get("once", [])) + len(broken.get("effects", [])),
            "jobs without an end": len(broken.get("ended", [])),
            "counts other than their rows": len(broken.get("counts", [])) + len(broken.get("files", [])),
            "promises broken in all": len(broken),
            "jobs failed without excuse": sum(row["n"] for row in failures if row["status"] not in _EXCUSED),
        }


def _pairs(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['status']} {row['n']}" for row in rows) or "none"


# How often each comes, against the others.
_FAULTS: Final[dict[str, tuple[float, Callable[[Storm], None]]]] = {
    "child killed": (6, Storm._kill_child),
    "worker killed": (2, Storm._kill_worker),
    "worker stopped": (1, Storm._stop_worker),
    "child frozen": (3, Storm._freeze_child),
    "worker frozen": (1, Storm._freeze_worker),
    "scheduler killed": (1, Storm._kill_scheduler),
    "api killed": (0.7, Storm._kill_api),
    "postgres cut": (2, Storm._cut_postgres),
    "postgres away": (0.7, Storm._lose_postgres),
    "postgres killed": (0.5, Storm._kill_postgres),
    "redis cut": (1, Storm._cut_redis),
    "redis away": (1, Storm._lose_redis),
    "redis flushed": (1, Storm._flush_redis),
    "redis emptied": (0.5, Storm._empty_redis),
}


def run(jobs: int, seed: int, folder: Path, say: Callable[[str], None]) -> bool:
    """Run it, print numbers beside their goals. True if every goal was met."""
    say(f"{jobs} jobs, seed {seed}; logs in {folder}")
    with engines.on_own_stores(folder) as (engine, stores):
        counts = Storm(engine, stores, jobs, seed).run(say)
    for what, count in counts.items():
        say(f"{what:<32} {count:>6}   goal 0   {'met' if count == 0 else 'MISSED'}")
    return not any(counts.values())
