"""`python -m headwater_worker.health interactive`: is the process of this container at work? Exit code 0 or 1.

Asked of Postgres, where all leave a trace: a worker says every few seconds that it is there, the connections of
scheduler and deliverer ask twice a second for what is due. A worker whose Redis is away only waits for it, and says
nothing meanwhile: that makes no container look broken.
"""

import argparse
import socket
import sys
from typing import Final

import psycopg
import redis

from headwater.jobs.kinds import Queue
from headwater.settings import DatabaseSettings, RedisSettings

_CONNECT_SECONDS: Final = 3
_DELIVERER: Final = "deliverer"
_ASKING: Final = ("scheduler", _DELIVERER)

# A worker says that it is there every 5 s.
_WORKER_SEEN: Final = """
    select 1 from worker
    where split_part(name, ':', 1) = %(name)s and seen_at > clock_timestamp() - interval '20 seconds'
"""
# Both connections come from this container, so they have the same address.
_AT_WORK: Final = """
    select 1 from pg_stat_activity
    where datname = current_database() and application_name = %(application)s
      and client_addr is not distinct from inet_client_addr()
      and query_start > clock_timestamp() - interval '30 seconds'
"""


def healthy(database_url: str, role: str) -> bool:
    """Whether the worker of queue `role`, the scheduler or the deliverer is at work here. Raises `psycopg.Error`."""
    query = _AT_WORK if role in _ASKING else _WORKER_SEEN
    names = {"name": f"{role}@{socket.gethostname()}", "application": f"headwater-{role}"}
    with psycopg.connect(
        database_url, connect_timeout=_CONNECT_SECONDS, application_name="headwater-health"
    ) as connection:
        return connection.execute(query, names).fetchone() is not None


def _redis_is_away() -> bool:
    try:
        with redis.Redis.from_url(
            RedisSettings().redis_url, socket_timeout=_CONNECT_SECONDS, socket_connect_timeout=_CONNECT_SECONDS
        ) as client:
            return not client.ping()
    except redis.RedisError:
        return True


def main() -> int:
    """The exit code: 0 healthy, 1 not."""
    parser = argparse.ArgumentParser(prog="headwater_worker.health")
    parser.add_argument("role", choices=[*(queue.value for queue in Queue), *_ASKING])
    role = parser.parse_args().role
    try:
        # The deliverer has no use for Redis, and is not told where it is.
        return 0 if healthy(DatabaseSettings().database_url, role) or (role != _DELIVERER and _redis_is_away()) else 1
    except psycopg.Error:
        sys.stderr.write("Postgres does not answer.\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
