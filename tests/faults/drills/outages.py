"""Redis is away: submits go on, and when it is back, whatever it still knows, the jobs start."""

import signal
import time
from typing import Final
from uuid import UUID

from drills.figures import Figure
from drills.ground import Ground
from headwater import ids

_AWAY_SECONDS: Final = 20.0
_SUBMITS: Final = 120
_SETTLED_SECONDS: Final = 3.0


def redis_away(ground: Ground) -> list[Figure]:
    """Killed and back with its data, killed and back empty, frozen and thawed; jobs are submitted meanwhile."""
    assert ground.stores is not None
    ground.api()
    ground.scheduler()
    ground.worker("interactive", 4)
    sources = [ground.engine.source() for _ in range(8)]
    answered: list[float] = []
    started: dict[str, list[float]] = {}
    refused = 0
    for back in ("with its data", "empty", "thawed"):
        time.sleep(_SETTLED_SECONDS)
        valkey = ground.stores.valkey.process
        valkey.send_signal(signal.SIGSTOP if back == "thawed" else signal.SIGKILL)
        jobs, seconds = _submit(ground, sources)
        answered += seconds
        refused += _SUBMITS - len(jobs)
        match back:
            case "with its data":
                ground.stores.revive_valkey()
            case "empty":
                ground.stores.empty_valkey()
            case "thawed":
                valkey.send_signal(signal.SIGCONT)
        returned = ground.now()
        ground.ended(jobs)
        started[back] = [(at - returned).total_seconds() for at in ground.started(jobs, 1).values()]
        ground.say(f"back {back}: the last of {len(jobs)} jobs starts after {max(started[back]):.1f} s")
    return [
        Figure("Redis away: a submit is answered", answered, goals={"p99": 0.3}),
        Figure("Redis away: submits not accepted", [refused], unit="", goals={"max": 0}),
        *(Figure(f"Redis back {back}: jobs start", values, goals={"p99": 10}) for back, values in started.items()),
    ]


def _submit(ground: Ground, sources: list[UUID]) -> tuple[list[UUID], list[float]]:
    """One after another, evenly while it is away: the jobs, and how long each answer took."""
    jobs, seconds = [], []
    for _ in range(_SUBMITS):
        began = time.monotonic()
        answer = ground.engine.send(ground.chance.choice(sources), "connection_test", ids.new().hex)
        seconds.append(time.monotonic() - began)
        if answer.status_code == 202:
            jobs.append(ids.decode("job", answer.json()["id"]))
        time.sleep(max(0, _AWAY_SECONDS / _SUBMITS - seconds[-1]))
    return jobs, seconds
