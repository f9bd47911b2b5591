"""Celery at its barest: a task that does nothing, its result through Redis; what our jobs are measured against.

`celery -A bench.celery_noop worker` with `HEADWATER_REDIS_URL`, on a database of its own in the same store.
"""

import os
from typing import Final

from celery import Celery

_BROKER: Final = os.environ["HEADWATER_REDIS_URL"].rsplit("/", 1)[0] + "/1"

app = Celery("bench", broker=_BROKER, backend=_BROKER)
app.conf.update(worker_prefetch_multiplier=1, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task
def nothing() -> None:
    """Nothing."""


@app.task(ignore_result=True)
def nothing_in_silence() -> None:
    """Nothing, and nobody is told."""
