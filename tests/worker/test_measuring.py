"""Real schedulers measure what real workers did, and die while they do."""

import signal
from typing import Any

import pytest

TALLIED = "select coalesce(sum(value), 0) as n from tally where name = 'headwater_jobs_finished_total'"
LEFT = "select count(*) as n from job where finished_at is not null and not tallied"

MEASURED = "select count(measured_at) as n from measurement"


def number(engine: Any, query: str) -> int:
    """The one number that a query gives."""
    row = engine.connection.execute(query).fetchone()
    return int(row["n"])


def tallies(engine: Any) -> dict[tuple[str, ...], float]:
    """{(name, values of its labels)} of the tallies but histograms."""
    rows = engine.connection.execute("select name, labels, value from tally where name not like '%%seconds%%'")
    return {(row["name"], *(row["labels"][name] for name in sorted(row["labels"]))): row["value"] for row in rows}


@pytest.fixture(autouse=True)
def _clean(engine: Any) -> None:
    engine.connection.execute("delete from job")
    engine.connection.execute("delete from tally")
    engine.connection.execute("update measurement set measured_at = null")


def test_what_jobs_came_to_is_measured(engine: Any) -> None:
    """A sync that brought records, and a test; who is at work."""
    engine.settings |= {"HEADWATER_LEASE_SECONDS": "30"}  # a slow machine loses none
    engine.scheduler()
    engine.worker()
    engine.worker("bulk", slots=1)
    tested = engine.submit(engine.source())
    assert engine.ended(engine.submit(engine.source(files=2, records=5), kind="sync"))["status"] == "succeeded"
    assert engine.ended(tested)["status"] == "succeeded"
    engine.until(lambda: number(engine, TALLIED) == 2)
    assert tallies(engine) == {
        ("headwater_jobs_finished_total", "sync", "succeeded"): 1,
        ("headwater_jobs_finished_total", "connection_test", "succeeded"): 1,
        ("headwater_job_attempts_total", "sync", "succeeded"): 1,
        ("headwater_job_attempts_total", "connection_test", "succeeded"): 1,
        ("headwater_items_synced_total", "scripted"): 10,
        ("headwater_item_errors_total", "scripted"): 0,
    }
    # The first measurement was taken before there was a worker.
    engine.connection.execute("update measurement set measured_at = null")
    engine.until(lambda: number(engine, MEASURED) == 1)
    rows = engine.connection.execute("select gauges from measurement").fetchone()["gauges"]
    gauges = {(gauge["name"], *gauge["labels"].values()): gauge["value"] for gauge in rows}
    assert (gauges["headwater_workers", "interactive"], gauges["headwater_worker_slots", "bulk"]) == (1, 1)
    assert gauges["headwater_redis_up",] == 1


@pytest.mark.parametrize(("point", "counted"), [("tally.written", 0), ("tally.committed", 7)])
def test_a_scheduler_that_dies_while_it_counts_neither_loses_nor_doubles(engine: Any, point: str, counted: int) -> None:
    """Dead before its commit it has counted nothing, dead behind it everything; the next two make it whole."""
    source = engine.source()
    for _ in range(7):
        engine.submit(source)
    engine.connection.execute("update job set status = 'failed', finished_at = now()")
    assert engine.scheduler(failpoints=f"{point}=die").popen.wait(timeout=30) == -signal.SIGKILL
    assert (number(engine, TALLIED), number(engine, LEFT)) == (counted, 7 - counted)
    engine.scheduler()
    engine.scheduler()
    engine.until(lambda: number(engine, LEFT) == 0 and number(engine, MEASURED) == 1)
    assert number(engine, TALLIED) == 7
