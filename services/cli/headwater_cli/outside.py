"""What the local stack asks of servers that it did not start: are they there, and do they let us in?

Nothing of a driver's text is shown: it can carry the address with its password.
"""

from typing import Final
from urllib.parse import urlsplit

import httpx2
import psycopg
import redis

from headwater_cli.errors import Failure

_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 0.5
_OLDEST_POSTGRES: Final = 15


def require_postgres(url: str) -> None:
    """Check the database of `HEADWATER_DATABASE_URL`.

    Raises:
        Failure: it cannot be reached, refuses us, or is too old.
    """
    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS) as connection:
            major = connection.info.server_version // 10000
    except (psycopg.errors.InvalidPassword, psycopg.errors.InvalidAuthorizationSpecification):
        raise _unusable("DATABASE", url, "refuses this user or password") from None
    except psycopg.errors.InvalidCatalogName:
        raise _unusable("DATABASE", url, "has no database of this name") from None
    except psycopg.ProgrammingError:
        raise _unusable("DATABASE", url, "cannot be asked: this is no URL of the form postgresql://...") from None
    except psycopg.Error as error:
        raise _unusable("DATABASE", url, _why(error)) from None
    if major < _OLDEST_POSTGRES:
        raise _unusable("DATABASE", url, f"is Postgres {major}; Headwater needs {_OLDEST_POSTGRES} or newer")


def _why(error: psycopg.Error) -> str:
    # A refused SCRAM exchange reaches psycopg without an SQLSTATE, as a text only.
    refused = "password authentication failed" in str(error)
    return "refuses this user or password" if refused else "does not answer"


def require_redis(url: str) -> None:
    """Check the server of `HEADWATER_REDIS_URL`.

    Raises:
        Failure: it cannot be reached or refuses us.
    """
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS)
        with client:
            client.ping()
    except ValueError:
        raise _unusable("REDIS", url, "cannot be asked: this is no URL of the form redis://...") from None
    except (redis.AuthenticationError, redis.ResponseError):
        raise _unusable("REDIS", url, "refuses this user or password") from None
    except redis.RedisError:
        raise _unusable("REDIS", url, "does not answer") from None


def _unusable(kind: str, url: str, what: str) -> Failure:
    return Failure(
        f"HEADWATER_{kind}_URL is set, and {address(url)} {what}.",
        hint=f"Correct it, or unset HEADWATER_{kind}_URL to use the embedded one.",
    )


def address(url: str) -> str:
    """Host and port of `url`, nothing else of it."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'its host'}:{parts.port}" if parts.port else parts.hostname or "its host"
    except ValueError:
        return "its host"


def answers(url: str) -> bool:
    """Whether GET `url` is answered with 200 at once."""
    try:
        return httpx2.get(url, timeout=_ANSWER_SECONDS, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def accepts_key(api_url: str, api_key: str) -> bool:
    """Whether the API knows `api_key`. An API that cannot say counts as yes: nothing is to be made anew then."""
    try:
        answer = httpx2.get(
            f"{api_url}/me", headers={"Authorization": f"Bearer {api_key}"}, timeout=10, trust_env=False
        )
    except httpx2.HTTPError:
        return True
    return answer.status_code != 401


def worker_age_seconds(database_url: str, queue: str) -> float | None:
    """How long ago a worker of `queue` was last seen, by the database's clock; None if there is none."""
    try:
        with psycopg.connect(database_url, connect_timeout=1) as connection:
            row = connection.execute(
                "select extract(epoch from clock_timestamp() - max(seen_at)) from worker where queue = %s", (queue,)
            ).fetchone()
    except psycopg.Error:
        return None
    return None if row is None or row[0] is None else float(row[0])
