"""Workers and children that are killed with jobs: how long until the jobs are back in the queue, and run again."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from engines import Process

from drills.figures import Figure
from drills.ground import Ground, between

_ROUNDS: Final = 3
_WORKERS: Final = 4
_SLOTS: Final = 4
_HEARTBEAT_SECONDS: Final = 5.0  # a kill comes at any moment between two of them


def killed_workers(ground: Ground) -> list[Figure]:
    """SIGKILL of four workers with all their children, sixteen syncs running; others take their places."""
    ground.scheduler()
    workers = ground.workers([("bulk", _SLOTS)] * _WORKERS)
    requeued: list[float] = []
    again: list[float] = []
    for number in range(_ROUNDS):
        jobs = ground.syncs(_WORKERS * _SLOTS)
        killed: dict[UUID, datetime] = {}
        for worker in workers:
            time.sleep(ground.chance.uniform(0, _HEARTBEAT_SECONDS / _WORKERS))
            held = _held(ground, worker)
            _kill([worker.pid, *worker.children()])
            killed |= dict.fromkeys(held, ground.now())
            worker.popen.wait()
        workers = ground.workers([("bulk", _SLOTS)] * _WORKERS)
        queued, ran = _gone_on(ground, jobs, killed)
        requeued += queued
        again += ran
        ground.say(f"round {number + 1} of {_ROUNDS}: the last of {len(killed)} runs again after {max(ran):.1f} s")
    return [
        Figure("worker killed: its jobs are queued again", requeued, goals={"p99": 40}),
        Figure("worker killed: they run again", again),
    ]


def killed_children(ground: Ground) -> list[Figure]:
    """SIGKILL of one child after another; their worker lives."""
    ground.scheduler()
    workers = ground.workers([("bulk", _SLOTS)] * 2)
    requeued: list[float] = []
    again: list[float] = []
    for number in range(_ROUNDS):
        jobs = ground.syncs(2 * _SLOTS)
        killed: dict[UUID, datetime] = {}
        for worker in workers:
            for pid, job_id in _holders(ground, worker).items():
                time.sleep(ground.chance.uniform(0, 1))
                _kill([pid])
                killed[job_id] = ground.now()
        queued, ran = _gone_on(ground, jobs, killed)
        requeued += queued
        again += ran
        ground.say(f"round {number + 1} of {_ROUNDS}: the last of {len(killed)} runs again after {max(ran):.1f} s")
    return [
        Figure("child killed: its job is queued again", requeued, goals={"p99": 10}),
        Figure("child killed: it runs again", again),
    ]


def _gone_on(ground: Ground, jobs: Sequence[UUID], killed: dict[UUID, datetime]) -> tuple[list[float], list[float]]:
    """Seconds until each that was killed was queued again, and until it ran again; then all are cancelled."""
    ground.running(jobs, 2)
    queued = between(killed, ground.told(jobs, "job.requeued"))
    ran = between(killed, ground.started(jobs, 2))
    ground.cancel(jobs)
    ground.ended(jobs)
    return queued, ran


def _held(ground: Ground, worker: Process) -> list[UUID]:
    return list(_holders(ground, worker).values())


def _holders(ground: Ground, worker: Process) -> dict[int, UUID]:
    """Which child of the worker has which job."""
    children = worker.children()
    rows = ground.engine.connection.execute("select job_id, worker from job_lease").fetchall()
    holders = {int(row["worker"].rpartition(":")[2]): row["job_id"] for row in rows}
    return {pid: job_id for pid, job_id in holders.items() if pid in children}


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
