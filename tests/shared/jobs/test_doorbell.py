"""Rings behind commits: few go to a long queue, and what nobody can ring for is left to the dispatcher."""

import queue
import time
from collections.abc import Iterator, Sequence

import pytest
import redis

from headwater import ids
from headwater.jobs.doorbell import Bellboy, Doorbell, Ring

LONG = 8


@pytest.fixture
def lists(valkey: str) -> Iterator[redis.Redis]:
    """The rings themselves."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        yield client


class Left(queue.SimpleQueue[Ring]):
    """What was left to the dispatcher."""

    def __call__(self, rings: Sequence[Ring]) -> None:
        for ring in rings:
            self.put(ring)


@pytest.fixture
def left() -> Left:
    """Nothing yet."""
    return Left()


@pytest.fixture
def bellboy(valkey: str, left: Left) -> Iterator[Bellboy]:
    """At work."""
    bellboy = Bellboy(Doorbell(valkey), left)
    bellboy.start()
    yield bellboy
    bellboy.stop()


def _ring(kind: str = "connection_test") -> Ring:
    return Ring(ids.new(), kind, ids.new())


def _once_it_may(bellboy: Bellboy, queue: str) -> None:
    deadline = time.monotonic() + 10
    while not bellboy.may_ring(queue):
        assert time.monotonic() < deadline


def test_a_long_queue_is_left_to_the_dispatcher_but_for_one_that_tries(
    lists: redis.Redis, left: Left, bellboy: Bellboy
) -> None:
    """The ring that finds it long is given back; one in a while finds out whether that is still so."""
    lists.lpush("interactive", *["x"] * LONG)
    assert bellboy.may_ring("interactive")
    for _ in range(2):
        ring = _ring()
        bellboy.ring(ring)
        assert left.get(timeout=10) == ring
        assert not bellboy.may_ring("interactive")
        assert bellboy.may_ring("bulk")
        _once_it_may(bellboy, "interactive")
        assert not bellboy.may_ring("interactive")
    lists.delete("interactive")
    bellboy.ring(_ring())
    assert lists.brpop(["interactive"], timeout=10) is not None
    bellboy.ring(_ring())
    assert lists.brpop(["interactive"], timeout=10) is not None
    assert bellboy.may_ring("interactive")
    assert bellboy.may_ring("interactive")


def test_what_finds_room_is_rung_for(lists: redis.Redis, left: Left, bellboy: Bellboy) -> None:
    """And the next, too."""
    for _ in range(2):
        bellboy.ring(_ring("sync"))
        assert lists.brpop(["bulk"], timeout=10) is not None
        assert bellboy.may_ring("bulk")
    assert left.empty()


def test_without_redis_jobs_are_left_to_the_dispatcher(left: Left) -> None:
    """Nobody waits for it."""
    bellboy = Bellboy(Doorbell("redis://127.0.0.1:1/0", timeout_seconds=1), left)
    bellboy.start()
    ring = _ring()
    bellboy.ring(ring)
    assert left.get(timeout=10) == ring
    assert not bellboy.may_ring("interactive")
    bellboy.stop()
