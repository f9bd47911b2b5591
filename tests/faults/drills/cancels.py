"""How long a cancel takes: of a job that heeds it, of a driver that does not, of one that only waits."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from drills.figures import Figure
from drills.ground import Ground, between

_ROUNDS: Final = 3
_AT_ONCE: Final = 8
_QUEUED: Final = 200
_HEARTBEAT_SECONDS: Final = 5.0


def cancels(ground: Ground) -> list[Figure]:
    """Through the API, at any moment between two heartbeats: from before the request to the job's end."""
    ground.api()
    ground.scheduler()
    waiting = [ground.engine.submit(ground.engine.source()) for _ in range(_QUEUED)]
    queued = _cancelled(ground, waiting)
    ground.workers([("bulk", _AT_ONCE), ("interactive", _AT_ONCE)])
    heeded: list[float] = []
    forced: list[float] = []
    for number in range(_ROUNDS):
        heeded += _cancelled(ground, ground.syncs(_AT_ONCE))
        hung = [ground.long(ground.engine.source(fail="hang"), "file_listing") for _ in range(_AT_ONCE)]
        ground.running(hung, 1)
        forced += _cancelled(ground, hung)
        ground.say(f"round {number + 1} of {_ROUNDS}: heeded within {max(heeded):.1f} s, forced {max(forced):.1f} s")
    return [
        Figure("cancel: a job that waits has ended", queued, goals={"p99": 1}),
        Figure("cancel: a job that heeds it has ended", heeded, goals={"p99": 12}),
        Figure("cancel: a driver that hangs is ended", forced, goals={"p99": 40}),
    ]


def _cancelled(ground: Ground, jobs: Sequence[UUID]) -> list[float]:
    asked: dict[UUID, datetime] = {}
    for job_id in jobs:
        asked[job_id] = ground.now()
        answer = ground.engine.cancel(job_id)
        assert answer.status_code in (200, 202), answer.text
        time.sleep(ground.chance.uniform(0, _HEARTBEAT_SECONDS / len(jobs)))
    ground.ended(jobs)
    return between(asked, ground.finished(jobs))
