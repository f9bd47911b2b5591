"""Whether a worker grows with the jobs that it has done."""

import statistics
from typing import Final

from drills import processes
from drills.figures import Figure
from drills.ground import Ground

_JOBS: Final = 5000
_WARM: Final = 500
_STEP: Final = 100


def memory(ground: Ground) -> list[Figure]:
    """Thousands of connection tests on one worker: the slope of its parent's memory, and of its largest child's.

    A child is replaced after 2,000 jobs, so that what it may lose ends with it.
    """
    ground.api()
    ground.scheduler()
    worker = ground.worker("interactive", 2)
    ground.flood(_JOBS)
    done: list[float] = []
    parent: list[float] = []
    child: list[float] = []
    for count in range(_WARM, _JOBS + 1, _STEP):
        ground.succeeded(count)
        done.append(count / 1000)
        parent.append(processes.rss(worker.pid))
        child.append(max((processes.rss(pid) for pid in worker.children()), default=0))
        if count % 1000 == 0:
            ground.say(f"{count} jobs: parent {parent[-1]:.1f} MiB, largest child {child[-1]:.1f} MiB")
    slopes = [statistics.linear_regression(done, memory).slope for memory in (parent, child)]
    return [
        Figure("memory: a worker's parent, with 1,000 jobs", [slopes[0]], unit="MiB", goals={"max": 1}),
        Figure("memory: its largest child, with 1,000 jobs", [slopes[1]], unit="MiB", goals={"max": 1}),
    ]
