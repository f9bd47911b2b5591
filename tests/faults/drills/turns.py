"""How long a job waits for its turn: on an idle system, and beside another organization's flood."""

import time
from pathlib import Path
from typing import Any, Final

import httpx2
import making

from drills.figures import Figure
from drills.ground import Ground
from headwater import ids

_IDLE: Final = 200
_PAUSE_SECONDS: Final = 0.3
_FLOOD: Final = 10_000
_TRIES: Final = 20


def idle_start(ground: Ground) -> list[Figure]:
    """One submit through the API after another, each when the one before has ended: from its row to its attempt's."""
    ground.api()
    ground.scheduler()
    ground.worker("interactive", 2)
    source = ground.engine.source()
    jobs = []
    for _ in range(_IDLE):
        jobs.append(ground.engine.post(source))
        ground.engine.ended(jobs[-1])
        time.sleep(ground.chance.uniform(0, _PAUSE_SECONDS))
    rows = ground.engine.connection.execute(
        "select extract(epoch from started_at - created_at)::float as s from job where id = any(%s)", (jobs,)
    )
    return [Figure("idle: a job starts", [row["s"] for row in rows], goals={"p50": 0.15, "p99": 1})]


def flood(ground: Ground) -> list[Figure]:
    """One organization queues 10,000 jobs; while they are worked off, another one's single jobs start."""
    engine = ground.engine
    ground.api()
    ground.scheduler()
    ground.flood(_FLOOD)
    ground.say(f"{_FLOOD} jobs are queued")
    ground.workers([("interactive", 2)] * 2)
    master_key_file = Path(engine.settings["HEADWATER_MASTER_KEY_FILE"])
    other = making.make_organization(
        engine.database, engine.pepper_file, master_key_file, name="Birch", email="bo@example.com"
    )
    waited = []
    with httpx2.Client(
        base_url=engine.client.base_url, headers={"Authorization": f"Bearer {other.api_key}"}, trust_env=False
    ) as client:
        path = _source_of(ground, other)
        for _try in range(_TRIES):
            began = ground.now()
            job_id = ids.decode("job", client.post(f"{path}/test").json()["id"])
            ground.ended([job_id])
            waited.append((ground.started([job_id], 1)[job_id] - began).total_seconds())
            time.sleep(ground.chance.uniform(0.5, 2))
    left = engine.one("select count(*) as n from job where status = 'queued'")
    assert left is not None
    assert left["n"], "the flood had run dry before the last try"
    ground.say(f"{left['n']} jobs of the flood are left")
    return [Figure("beside a flood of 10,000: a job starts", waited, goals={"p99": 5})]


def _source_of(ground: Ground, organization: Any) -> str:
    """The route of a data source of the other organization."""
    project_id = making.make_project(ground.engine.connection, organization.organization_id)
    source_id = making.make_source(ground.engine.connection, organization.organization_id, project_id)
    return f"projects/{ids.encode('proj', project_id)}/data-sources/{ids.encode('dsrc', source_id)}"
