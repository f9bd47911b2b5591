"""The product on a full database beside the product on one that is nearly empty: the same requests, in turns.

Full: 10,000 sources, 1,000,000 ended jobs, 10,000,000 items, most of all in one organization. Nearly empty: ten sources
and a hundred jobs, so that pages are as full. Both have ten jobs that wait.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import filling
import making
from engines import Engine
from filling import Owner, Sizes

from bench import ground
from bench.measuring import Figure, Report, at_most, interleaved, median
from bench.scale import asking, turning
from bench.scale.asking import Ask, Side
from headwater import db

FULL: Final = Sizes(organizations=100, sources=10_000, jobs=1_000_000, files=100_000)
_QUICK: Final = Sizes(organizations=10, sources=100, jobs=1_000, files=100)
NEARLY_EMPTY: Final = Sizes(organizations=0, sources=10, jobs=100, files=100)
_GOAL: Final = at_most(1.5)
_BESIDE: Final = "nearly empty"
_ROUNDS: Final = 3
_WARM: Final = 6  # calls, after which a driver has prepared its statements
_BIG: Final = (
    "job", "job_attempt", "job_progress", "job_summary", "event", "audit_entry", "audit_chain", "webhook_delivery",
    "file", "load", "item", "item_key", "reject",
)  # fmt: skip


def run(report: Report, *, quick: bool) -> None:
    """Requests through the real API, the scheduler's turns by themselves; then the sizes."""
    with side(_QUICK if quick else FULL) as full, side(NEARLY_EMPTY) as small:
        compare(report, full, small, calls=1 if quick else 12)


def compare(report: Report, full: Side, small: Side, *, calls: int) -> None:
    """Add everything that is measured of both, each with so many calls in a turn."""
    for ask in asking.reads():
        _compare(report, ask.name, partial(_seconds, ask), (full, small), calls)
    for name, seconds in _WRITES.items():
        _compare(report, name, seconds, (full, small), calls)
    with _scheduling(full.engine) as ours, _scheduling(small.engine) as theirs:
        for name, turn in turning.turns().items():
            _compare(report, f"scheduler: {name}", partial(_turn_seconds, turn), (ours, theirs), calls)
    _sizes(report, full.engine)


@contextmanager
def side(sizes: Sizes) -> Iterator[Side]:
    with ground.engine(HEADWATER_METRICS_TOKEN=asking.METRICS_TOKEN) as (engine, _):
        owner = Owner(engine.organization.organization_id, engine.organization.member_id, engine.project_id)
        began = time.monotonic()
        filling.fill(engine.database, sizes, owner)
        print(f"{sizes.jobs:,} jobs filled in {time.monotonic() - began:.0f} s", flush=True)
        engine.api()
        made = Side(engine)
        for _ in range(10):
            making.submit(
                engine.connection, engine.organization, made.source["project_id"], made.source_id, types=["s3"]
            )
        yield made


def _compare(report: Report, name: str, seconds: Callable[[Any], float], sides: tuple[Any, Any], calls: int) -> None:
    """The median of so many calls on each side, in turns of as many."""
    full, small = sides
    for side in sides:
        for _ in range(min(calls, _WARM)):
            seconds(side)
    ways = {name: partial(_typical, seconds, side, calls) for name, side in (("full", full), ("small", small))}
    found = {side: 1000 * median(values) for side, values in interleaved(ways, rounds=_ROUNDS).items()}
    report.add(Figure(name, "ms", found["full"], found["small"], _BESIDE, _GOAL))


def _typical(seconds: Callable[[Any], float], side: Any, calls: int) -> float:
    return median(seconds(side) for _ in range(calls))


def _seconds(ask: Ask, side: Side) -> float:
    began = time.perf_counter()
    answer = ask.make(side)
    seconds = time.perf_counter() - began
    assert answer.status_code in (200, 204), (ask.name, answer.status_code, answer.text)
    return seconds


def _submit(side: Side) -> float:
    began = time.perf_counter()
    answer = side.submit()
    seconds = time.perf_counter() - began
    side.cancel(answer.raise_for_status().json()["id"]).raise_for_status()
    return seconds


def _cancel(side: Side) -> float:
    job = side.submit().raise_for_status().json()["id"]
    began = time.perf_counter()
    side.cancel(job).raise_for_status()
    return time.perf_counter() - began


_WRITES: Final = {
    "submit a job": _submit,
    "cancel a job": _cancel,
    "wait for a job, woken by its end": partial(_seconds, Ask("wait", asking.woken)),
}


def _scheduling(engine: Engine) -> db.Connection:
    return db.connect(making.as_service(engine.database, "scheduler"), application="bench")


def _turn_seconds(turn: turning.Turn, connection: db.Connection) -> float:
    began = time.perf_counter()
    turn(connection)
    return time.perf_counter() - began


def _sizes(report: Report, engine: Engine) -> None:
    """GB of table and indexes for a million rows. The baseline is the table without its indexes."""
    for table in _BIG:
        row = engine.one(
            f"select pg_total_relation_size('{table}') as all_bytes, pg_table_size('{table}') as own_bytes,"
            f" (select count(*) from {table}) as rows"
        )
        assert row is not None
        gigabytes = {name: row[name] / row["rows"] / 1000 for name in ("all_bytes", "own_bytes")}
        report.add(Figure(f"{table}, a million rows", "GB", gigabytes["all_bytes"], gigabytes["own_bytes"], "its rows"))
