"""Workers that die, freeze or are cut off, at each moment of a job."""

import pytest
import wire
from engines import CANARY, Engine

SYNC = {"files": 6, "records": 20, "broken": 1}
LISTING = {"files": 3000, "records": 0}
# Long enough for a lease to be lost meanwhile.
SLOW = {"files": 5000, "records": 0, "pause_seconds": 0.6}


# A sync writes five batches: what is listed, what is missing, what is outdated, then what it landed and what it shows.
@pytest.mark.parametrize(
    ("point", "number", "held"),
    [
        ("claim.committed", 1, True),
        ("batch.written", 4, True),
        ("batch.committed", 4, True),
        ("batch.committed", 8, True),
        ("record.begun", 1, True),
        *(
            pytest.param(*moment, marks=pytest.mark.long)
            for moment in [
                ("claim.begun", 1, False),
                ("batch.begun", 1, True),
                ("batch.committed", 1, True),
                ("batch.written", 2, True),
                ("batch.written", 3, True),
                ("batch.begun", 4, True),
                ("batch.written", 8, True),
                ("record.committed", 1, False),
            ]
        ),
    ],
)
def test_a_child_that_dies_in_a_sync(engine: Engine, point: str, number: int, held: bool) -> None:
    """Wherever it dies, each record is there once; a death without the lease is no crash of the job."""
    worker = engine.worker("bulk", failpoints=f"{point}=die@{number}")
    job_id = engine.post(engine.source(password=CANARY, **SYNC), "sync")
    engine.until(lambda: worker.reached(point, number))
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"], row["attempt"]) == ("partially_succeeded", held, 1 + held)


@pytest.mark.long
@pytest.mark.parametrize(
    ("point", "number", "held"),
    [
        ("claim.begun", 1, False),
        ("claim.committed", 1, True),
        ("batch.written", 1, True),
        ("batch.committed", 1, True),
        ("batch.written", 2, True),
        ("record.begun", 1, True),
        ("record.committed", 1, False),
    ],
)
def test_a_child_that_dies_in_a_listing(engine: Engine, point: str, number: int, held: bool) -> None:
    """The catalogue has each file once."""
    worker = engine.worker(failpoints=f"{point}=die@{number}")
    job_id = engine.post(engine.source(**LISTING), "file_listing")
    engine.until(lambda: worker.reached(point, number))
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"], row["result"]["file_count"]) == ("succeeded", held, LISTING["files"])


@pytest.mark.long
@pytest.mark.parametrize("point", ["beat.begun", "beat.sent"])
def test_a_child_that_dies_with_a_heartbeat(engine: Engine, point: str) -> None:
    """Before and behind the statement that extends its lease."""
    worker = engine.worker(failpoints=f"{point}=die")
    job_id = engine.post(engine.source(**SLOW), "file_listing")
    engine.until(lambda: worker.reached(point))
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"]) == ("succeeded", 1)


def test_a_child_that_dies_alone_ends_no_lease_late(engine: Engine) -> None:
    """Its worker lives and ends the lease: the job is taken back long before it would have run out."""
    worker = engine.worker("bulk", failpoints="batch.written=die", HEADWATER_LEASE_SECONDS="300")
    job_id = engine.post(engine.source(**SYNC), "sync")
    engine.until(lambda: worker.reached("batch.written"))
    assert engine.ended(job_id)["crashes"] == 1
    assert engine.outcomes(job_id) == ["lost", "partially_succeeded"]


@pytest.mark.parametrize(
    ("point", "number"),
    [
        ("batch.written", 4),
        *(pytest.param(point, 1, marks=pytest.mark.long) for point in ("claim.committed", "record.begun")),
    ],
)
def test_a_worker_that_is_killed_whole(engine: Engine, point: str, number: int) -> None:
    """SIGKILL of the parent at that moment of a child: the child dies with it, another worker does the job."""
    worker = engine.worker("bulk", failpoints=f"{point}=freeze@{number}")
    job_id = engine.post(engine.source(**SYNC), "sync")
    engine.until(lambda: worker.reached(point, number))
    worker.popen.kill()
    engine.worker("bulk")
    assert engine.ended(job_id)["attempt"] == 2
    assert engine.outcomes(job_id) == ["lost", "partially_succeeded"]


@pytest.mark.parametrize(
    ("point", "number"),
    [("batch.committed", 4), ("record.begun", 1), pytest.param("claim.committed", 1, marks=pytest.mark.long)],
)
def test_a_late_worker_writes_nothing(engine: Engine, point: str, number: int) -> None:
    """Frozen beyond its lease, thawed when another has ended the job: neither a batch nor an outcome of it counts."""
    late = engine.worker("bulk", slots=1, failpoints=f"{point}=freeze@{number}")
    job_id = engine.post(engine.source(**SYNC), "sync")
    engine.until(lambda: late.reached(point, number))
    engine.worker("bulk")
    row = engine.ended(job_id)
    late.thaw()
    engine.until(lambda: '"job.recorded"' in late.log.read_text())
    assert engine.outcomes(job_id) == ["lost", "partially_succeeded"]
    assert engine.ended(job_id) == row


@pytest.mark.long
def test_a_worker_frozen_in_a_transaction_holds_up_nobody(engine: Engine) -> None:
    """It has its lease's row locked: other lost leases are taken back meanwhile, and its own when Postgres ends it."""
    frozen = engine.worker("bulk", slots=1, failpoints="batch.written=freeze@4")
    held = engine.post(engine.source(**SYNC), "sync")
    engine.until(lambda: frozen.reached("batch.written", 4))
    other = engine.worker(failpoints="batch.written=die")
    job_id = engine.post(engine.source(**LISTING), "file_listing")
    engine.until(lambda: other.reached("batch.written"))
    assert engine.ended(job_id)["crashes"] == 1
    assert engine.status(held) == "running"
    engine.worker("bulk")
    assert engine.ended(held, seconds=60)["status"] == "partially_succeeded"
    frozen.thaw()
    engine.until(lambda: '"job.recorded"' in frozen.log.read_text())


@pytest.mark.parametrize("mode", ["reset", pytest.param("blackhole", marks=pytest.mark.long)])
def test_a_worker_that_is_cut_off_alone(engine: Engine, mode: wire.Mode) -> None:
    """Beyond its lease another worker has the job; when the line is back the first has nothing to say, and works."""
    with wire.to(engine.database) as line:
        cut_off = engine.worker(slots=1, database=line.url)
        job_id = engine.post(engine.source(**SLOW), "file_listing")
        # Its claim is visible before it knows itself, and a line that is cut between the two is not meant here.
        engine.until(lambda: '"job.claimed"' in cut_off.log.read_text())
        line.mode = mode
        engine.worker(slots=1)
        assert engine.ended(job_id)["attempt"] == 2
        line.mode = "pass"
        engine.until(lambda: '"job.recorded"' in cut_off.log.read_text())
        assert engine.outcomes(job_id) == ["lost", "succeeded"]
        cut_off.kill()


@pytest.mark.long
def test_a_worker_that_is_cut_off_stops_by_itself(engine: Engine) -> None:
    """Nobody can tell it that its lease is lost: it ends a driver that hangs before the job can be another's."""
    with wire.to(engine.database) as line:
        cut_off = engine.worker(slots=1, database=line.url)
        job_id = engine.post(engine.source(fail="hang_opening"), "file_listing")
        engine.running(job_id)
        beaten = """
            select from job_lease l join job_attempt a on a.token = l.token
            where l.job_id = %s and l.beat_at > a.started_at
        """
        engine.until(lambda: engine.one(beaten, job_id) is not None)
        line.mode = "reset"
        engine.until(lambda: '"job.unheeded"' in cut_off.log.read_text())
        line.mode = "pass"
        assert engine.cancel(job_id).status_code in (200, 202)
        assert engine.ended(job_id)["status"] == "cancelled"
        cut_off.kill()


@pytest.mark.long
def test_heartbeats_that_fail_are_made_again(engine: Engine) -> None:
    """Two in a row: the lease outlives them, and the job, which takes longer than a lease, is not taken from it."""
    engine.worker(failpoints="beat.begun=raise:2")
    row = engine.ended(engine.post(engine.source(**SLOW | {"pause_seconds": 1.6}), "file_listing"))
    assert (row["status"], row["attempt"]) == ("succeeded", 1)


@pytest.mark.long
def test_a_worker_dies_once_more_than_a_job_may(engine: Engine) -> None:
    """Twice is the job's fault: it fails with its reason, and no third worker is risked."""
    worker = engine.worker("bulk", failpoints="record.begun=die:3")
    row = engine.ended(engine.post(engine.source(**SYNC), "sync"))
    assert (row["status"], row["error"]["code"], row["crashes"]) == ("failed", "worker_crash", 2)
    assert worker.reached("record.begun", 3) is None
