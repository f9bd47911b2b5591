"""`python -m headwater_worker --queue interactive --slots 4`: run jobs of one queue until told to stop."""

import argparse
import sys
from typing import Final

import redis

from headwater import hardening, log
from headwater.connectors import registry
from headwater.jobs.kinds import Queue
from headwater.settings import RedisSettings
from headwater_worker import environment, keys, presence
from headwater_worker.app import app

_log = log.get(__name__)

_HIGHEST_SLOTS: Final = 256


def main() -> None:
    """Serve one queue. SIGTERM: no new jobs; the running ones finish within seconds or go back to the queue."""
    parser = argparse.ArgumentParser(prog="headwater_worker", description=__doc__)
    parser.add_argument("--queue", required=True, choices=[queue.value for queue in Queue])
    parser.add_argument("--slots", type=int, default=2, help="jobs at once, each in a process of its own")
    arguments = parser.parse_args()
    if not 1 <= arguments.slots <= _HIGHEST_SLOTS:
        parser.error(f"--slots must be between 1 and {_HIGHEST_SLOTS}")
    environment.clean()
    hardening.seal()
    registry.specs()  # each child would look for them again
    log.configure(f"worker_{arguments.queue}")
    keys.require_strong()
    _require_no_eviction(RedisSettings().redis_url)
    presence.introduce(presence.Identity(queue=arguments.queue, slots=arguments.slots))
    app.worker_main(
        [
            "--quiet",
            "worker",
            f"--queues={arguments.queue}",
            f"--concurrency={arguments.slots}",
            f"--hostname={arguments.queue}@%h",
            "--pool=prefork",
            "--task-events",
            "--without-mingle",
            "--without-gossip",
            "--loglevel=WARNING",
        ]
    )


def _require_no_eviction(url: str) -> None:
    """A Redis that evicts would silently drop rings; they cost seconds each, so refuse to start on one."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            policy = client.info("memory").get("maxmemory_policy")
    except redis.RedisError:
        _log.warning("redis.unreachable", hint="Waiting for it; jobs stay queued in Postgres.")
        return
    if policy not in (None, "noeviction"):
        _log.error("redis.evicts", policy=policy, hint="Set maxmemory-policy to noeviction.")
        sys.exit(2)


if __name__ == "__main__":
    main()
