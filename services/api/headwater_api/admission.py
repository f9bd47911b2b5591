"""How often somebody may come: requests by key, guesses of a key by address.

A token bucket for each, in the memory of this process. Those of keys are reconciled through Redis once a second: each
process adds what it took to a shared counter, and takes from its own bucket what the others took meanwhile. No request
waits for that, and while Redis is away each process counts for itself.
"""

import asyncio
import contextlib
import ipaddress
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from headwater import log
from headwater.errors import TooManyRequests, Unauthenticated

RECONCILED_SECONDS: Final = 1.0
GUESSES_PER_SECOND: Final = 20
GUESSES_AT_ONCE: Final = 100
"""More than a second's worth: those behind one address may all start at the same moment, with good keys."""

_MOST_BUCKETS: Final = 20_000
_COUNTER_SECONDS: Final = 60
_REDIS_SECONDS: Final = 1.0

_log = log.get(__name__)

Key = TypeVar("Key", UUID, str)


@dataclass(slots=True)
class _Bucket:
    """`level` at the time `at`; `taken` since it was collected; `total` of all processes when that was last told."""

    level: float
    at: float
    taken: int = 0
    total: int | None = None


class Buckets(Generic[Key]):
    """A bucket for each key: it holds up to `most` and is filled with `per_second`. A full one needs no place.

    `now` counts seconds and never goes back.
    """

    def __init__(self, per_second: float, most: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._most = most
        self._now = now
        self._buckets: dict[Key, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Key) -> float:
        """Take one: what is left. Below zero nothing was taken, and so much is missing for one."""
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room()
            bucket = self._buckets[key] = _Bucket(self._most, self._now())
        left = self._filled(bucket) - 1
        if left >= 0:
            bucket.level = left
            bucket.taken += 1
        return left

    def give_back(self, key: Key) -> None:
        """Undo a `take`."""
        if (bucket := self._buckets.get(key)) is not None:
            bucket.level += 1

    def collect(self) -> dict[Key, int]:
        """What was taken of each bucket since the last time; of those that are not full, also if it is nothing."""
        counts = {}
        for key, bucket in list(self._buckets.items()):
            if self._filled(bucket) >= self._most and not bucket.taken:
                del self._buckets[key]
            else:
                counts[key], bucket.taken = bucket.taken, 0
        return counts

    def settle(self, counts: Mapping[Key, int], totals: Sequence[int] | None) -> None:
        """Take what others took since the last time: the totals with our `counts` in them, or None if nobody knows."""
        for place, (key, count) in enumerate(counts.items()):
            if (bucket := self._buckets.get(key)) is None:
                continue
            total = None if totals is None else totals[place]
            if total is not None and bucket.total is not None:
                # A counter that Redis has lost began again below the last total.
                bucket.level -= max(0, total - count - bucket.total)
            bucket.total = total

    def _filled(self, bucket: _Bucket) -> float:
        now = self._now()
        bucket.level = min(self._most, bucket.level + (now - bucket.at) * self._per_second)
        bucket.at = now
        return bucket.level

    def _make_room(self) -> None:
        if len(self._buckets) < _MOST_BUCKETS:
            return
        kept = {key: bucket for key, bucket in self._buckets.items() if self._filled(bucket) < self._most}
        # Nearly all in use at once: whoever comes with so many keys or addresses is not held by a bucket for each.
        self._buckets = kept if len(kept) < _MOST_BUCKETS / 2 else {}


@dataclass(frozen=True)
class Admission:
    """What the limit says to one request. `wait_seconds` until there is more."""

    granted: bool
    headers: Mapping[str, str]
    wait_seconds: int


class RateLimiter:
    """`per_second` requests a second of each key, and a second's worth at once, over all processes on one Redis.

    The header fields are those of draft-ietf-httpapi-ratelimit-headers-10.
    """

    def __init__(self, per_second: int, redis_url: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._policy = f'"key";q={per_second};w=1'
        self._buckets: Buckets[UUID] = Buckets(per_second, per_second, now=now)
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=_REDIS_SECONDS,
            socket_connect_timeout=_REDIS_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Reconcile each second, until `stop`."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what was counted last is no longer told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._redis.close()

    def admit(self, key: UUID) -> Admission:
        """Count a request of `key`, unless it is one too many."""
        left = self._buckets.take(key)
        wait_seconds = max(1, math.ceil(-left / self._per_second))
        limit = f'"key";r={max(0, int(left))};t={wait_seconds}'
        return Admission(left >= 0, {"RateLimit": limit, "RateLimit-Policy": self._policy}, wait_seconds)

    async def reconcile(self) -> None:
        """Tell the others what was counted here, and hear what they counted."""
        counts = self._buckets.collect()
        if not counts:
            return
        try:
            totals = await asyncio.to_thread(self._add, counts)
        except redis.RedisError as error:
            # What could not be told is not told later: the others would pay for it all at once.
            self._buckets.settle(counts, None)
            if not self._away:
                _log.warning("rate_limit.redis_away", error=type(error).__name__)
            self._away = True
            return
        self._buckets.settle(counts, totals)
        if self._away:
            _log.info("rate_limit.redis_found")
        self._away = False

    def _add(self, counts: Mapping[UUID, int]) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for key, count in counts.items():
            name = f"headwater:rate:{key.hex}"
            pipeline.incrby(name, count)
            pipeline.expire(name, _COUNTER_SECONDS)
        totals: list[int] = pipeline.execute()[::2]
        return totals

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RECONCILED_SECONDS)
            await self.reconcile()


class Strangers:
    """How many keys and tokens that are not known here an address may try in vain."""

    def __init__(self) -> None:
        self._buckets: Buckets[str] = Buckets(GUESSES_PER_SECOND, GUESSES_AT_ONCE)

    @contextlib.contextmanager
    def guess(self, address: str | None) -> Iterator[None]:
        """Around the look-up of what was sent: only one that ends with `Unauthenticated` counts.

        Raises `TooManyRequests` (`too_many_guesses`) instead of looking.
        """
        network = _network(address)
        if self._buckets.take(network) < 0:
            raise TooManyRequests(
                "Too many keys or tokens that are not good came from your address.",
                code="too_many_guesses",
                hint="Wait, then send a good one. Those that were in use a moment ago go on to work.",
                retry_after_seconds=1,
            )
        try:
            yield
        except Unauthenticated:
            raise
        except BaseException:
            self._buckets.give_back(network)
            raise
        self._buckets.give_back(network)


def _network(address: str | None) -> str:
    """The address; of IPv6 the /64, which is one customer's."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""  # a socket of this machine, or what a trusted proxy called it
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
