"""What every child process of a worker is made of."""

import functools
import gc
import os
import threading
from typing import Final

from headwater import hardening
from headwater.settings import DatabaseSettings, EgressSettings, RedisSettings, UploadSettings
from headwater_worker import environment, keys, printing
from headwater_worker.draining import Draining
from headwater_worker.egress import Policy, second_line
from headwater_worker.runner import Runner, end_own_process_group

DRAINING = Draining()

# Celery logs what `begin` raises and goes on.
_begun = threading.Event()

# Imported before the fork.
_PARENT: Final = os.getpid()


def begin() -> None:
    """Called in each child after the fork: a process group of its own, so that it can end itself and its helpers."""
    os.setsid()
    hardening.seal()
    printing.capture()
    environment.end_with(_PARENT)
    second_line.install(
        Policy.parse(EgressSettings().egress_allow),
        own_endpoints=[second_line.endpoint(url) for url in _own_urls()],
    )
    _collect_seldom()
    _begun.set()


def _collect_seldom() -> None:
    """What is loaded stays, and a job makes many small objects that refer to none of each other: to look through them
    as often as Python would takes a quarter of a listing's time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _own_urls() -> list[str]:
    """Of database, Redis, key providers, and the store where the operator keeps uploads."""
    uploads = UploadSettings()
    stored = [uploads.uploads_endpoint_url] if uploads.uploads_bucket and uploads.uploads_endpoint_url else []
    return [DatabaseSettings().database_url, RedisSettings().redis_url, *stored, *keys.endpoints()]


@functools.cache
def runner() -> Runner:
    """This child's runner. Raises `RuntimeError` if `begin` did not succeed: nothing runs without its walls."""
    if not _begun.is_set():
        raise RuntimeError("This child could not be set up; the worker's log says why.")
    return Runner(draining=lambda: bool(DRAINING), end_process=end_own_process_group)
