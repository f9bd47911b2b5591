"""Cancel is true: `cancelling` until the work has ended, `cancelled` then, and nothing is written or asked after it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import making
import pytest
import wire
from engines import Engine

from headwater.connectors.s3 import SPEC
from headwater_cli.demo import bucket


def _cancelled(engine: Engine, job_id: UUID) -> dict[str, Any]:
    """The job's row when it has ended; somebody asked to cancel it for this reason."""
    row = engine.ended(job_id)
    assert (row["cancel_requested_by"], row["cancel_reason"]) == (engine.organization.member_id, "no longer needed")
    return row


def test_after_a_cancel_the_source_is_left_alone(engine: Engine) -> None:
    """A listing of an S3 bucket whose pages take their time: behind `cancelled` the bucket hears nothing any more."""
    objects = {f"{number:05}.json": b"{}" for number in range(4000)}
    with bucket.serve(buckets={"cancel": objects}) as server, wire.to(server.endpoint_url, slow_seconds=0.4) as line:
        line.mode = "slow"
        config = {"bucket": "cancel", "region": server.region, "endpoint_url": line.url}
        job_id = engine.post(_bucket_source(engine, server, config), "file_listing")
        engine.worker(slots=1)
        engine.until(lambda: line.carried > 0)
        answer = engine.cancel(job_id)
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
        assert _cancelled(engine, job_id)["status"] == "cancelled"
        carried = line.carried
        time.sleep(2)  # four pages' time
        assert (line.carried, line.open) == (carried, 0)
        assert engine.outcomes(job_id) == ["cancelled"]


def _bucket_source(engine: Engine, server: bucket.Server, config: dict[str, Any]) -> UUID:
    organization_id, user = engine.organization.organization_id, server.users["reader"]
    source_id = making.make_source(engine.connection, organization_id, engine.project_id, config, type_="s3")
    secrets = {"access_key_id": user.access_key_id, "secret_access_key": user.secret_access_key}
    making.put_credentials(
        engine.connection, organization_id, source_id, SPEC, config={"type": "s3", **config}, secrets=secrets
    )
    return source_id


@pytest.mark.parametrize(
    ("point", "number"), [("batch.committed", 4), pytest.param("record.begun", 1, marks=pytest.mark.long)]
)
def test_a_cancel_that_nobody_hears_is_true_when_the_lease_is_lost(engine: Engine, point: str, number: int) -> None:
    """The worker is frozen: `cancelling` until its lease is taken back; thawed, it neither writes nor succeeds."""
    frozen = engine.worker("bulk", slots=1, failpoints=f"{point}=freeze@{number}")
    source = engine.source(files=6, records=20)
    job_id = engine.post(source, "sync")
    engine.until(lambda: frozen.reached(point, number))
    frozen.freeze()
    assert engine.cancel(job_id).status_code == 202
    assert engine.status(job_id) == "cancelling"
    row = _cancelled(engine, job_id)
    assert (row["status"], engine.outcomes(job_id)) == ("cancelled", ["lost"])
    frozen.thaw()
    engine.until(lambda: '"job.recorded"' in frozen.log.read_text())
    if point == "batch.committed":
        shown = "select from load where job_id = %s and valid_from is not null"
        assert engine.one(shown, job_id) is None


@pytest.mark.parametrize("jobs", [40, pytest.param(1500, marks=pytest.mark.long)])
def test_a_cancel_races_the_end(engine: Engine, jobs: int) -> None:
    """One of the two wins, and the answer to the cancel was the truth."""
    engine.worker(slots=3)
    source = engine.source()

    def race(number: int) -> tuple[UUID, int]:
        job_id = engine.post(source)
        time.sleep(number % 10 / 100)
        return job_id, engine.cancel(job_id).status_code

    with ThreadPoolExecutor(4) as threads:
        races = list(threads.map(race, range(jobs)))
    ends = {job_id: engine.ended(job_id)["status"] for job_id, _ in races}
    allowed = {200: {"cancelled"}, 202: {"cancelled", "succeeded"}, 409: {"succeeded"}}
    assert {(code, ends[job_id]) for job_id, code in races if ends[job_id] not in allowed[code]} == set()
