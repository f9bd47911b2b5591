"""What Prometheus reads: for whoever has the operator's token, of nobody in particular."""

from collections.abc import Callable, Iterator
from uuid import UUID

import httpx2
import making
import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample
from pydantic import ValidationError
from serving import Api

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Progress, Succeeded
from headwater.measuring import gauges, tallies
from headwater.measuring.families import FAMILIES, MEASURED_AT
from headwater.settings import JobSettings, MetricsSettings

TOKEN = "a token of the operator"
SETTINGS = JobSettings()


@pytest.fixture(scope="module")
def watched(start_api: Callable[..., Api]) -> Api:
    """An API with a token for Prometheus."""
    return start_api(HEADWATER_METRICS_TOKEN=TOKEN)


def ask(api: Api, authorization: str | None = f"Bearer {TOKEN}", accept: str = "text/plain") -> httpx2.Response:
    """GET /metrics, as Prometheus asks."""
    headers = {"Accept": accept.encode()} | ({"Authorization": authorization.encode()} if authorization else {})
    with api.client(None) as client:
        return client.get(api.url.removesuffix("/api/v1") + "/metrics", headers=headers)


def samples(answer: httpx2.Response) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """{(name, labels): value} of a text answer."""
    assert answer.status_code == 200, answer.text
    found: list[Sample] = [
        sample for family in parser.text_string_to_metric_families(answer.text) for sample in family.samples
    ]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def value(answer: httpx2.Response, name: str, **labels: str) -> float:
    return samples(answer)[name, frozenset(labels.items())]


@pytest.fixture
def synced(connection: Connection, scheduling: Connection, organization: CreatedOrganization) -> Iterator[UUID]:
    """A data source after a sync, a second one that runs, and a scheduler that has measured; nothing else."""
    for table in ("job", "tally"):
        connection.execute(f"delete from {table}")
    project_id = making.make_project(connection, organization.organization_id)
    source_id = making.make_source(connection, organization.organization_id, project_id)
    for ends in (True, False):
        answer = making.submit(connection, organization, project_id, source_id, "sync")
        claim = lifecycle.claim(connection, UUID(answer["job"]["id"]), worker="tests", settings=SETTINGS)
        assert claim is not None
        if ends:
            done = Progress("done", counters={"landed": 7, "rejected": 1})
            lifecycle.record(connection, claim, Succeeded({}, partially=True), done, settings=SETTINGS)
    tallies.add(scheduling, per_source=False)
    gauges.measure(scheduling, redis_up=True)
    yield source_id
    connection.execute("delete from tally")
    connection.execute("update measurement set measured_at = null, gauges = '[]'")


def test_without_a_token_of_its_own_there_is_no_such_route(api: Api) -> None:
    """Whatever is sent."""
    for authorization in (None, "Bearer", "Bearer None", f"Bearer {TOKEN}"):
        answer = ask(api, authorization)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}s", "Bearer None", "Bearer ö"],
)
def test_whoever_has_another_token_is_answered_401(watched: Api, authorization: str | None) -> None:
    """Without a word about ours."""
    answer = ask(watched, authorization)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text


def test_a_key_of_an_organization_opens_nothing(watched: Api, organization: CreatedOrganization) -> None:
    """Also not that of an admin."""
    assert ask(watched, f"Bearer {organization.api_key}").status_code == 401


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be guessed; what it was is not repeated. An empty one is as none."""
    monkeypatch.setenv("HEADWATER_METRICS_TOKEN", "hush hush")
    with pytest.raises(ValidationError, match="must have 16 characters or more") as refused:
        MetricsSettings()
    assert "hush" not in str(refused.value)
    monkeypatch.setenv("HEADWATER_METRICS_TOKEN", "")
    assert MetricsSettings().metrics_token is None


def test_before_the_first_measurement_everything_is_old(watched: Api) -> None:
    """No gauge says anything then, and the time says never."""
    answer = ask(watched)
    assert value(answer, "headwater_measured_timestamp_seconds") == 0
    assert "headwater_jobs_queued{" not in answer.text


def test_what_was_measured_is_shown(watched: Api, synced: UUID, connection: Connection) -> None:
    """Gauges, counters and histograms, each with its labels."""
    answer = ask(watched)
    assert value(answer, "headwater_jobs_running", kind="sync") == 1
    assert value(answer, "headwater_jobs_queued", queue="bulk") == 0
    assert value(answer, "headwater_redis_up") == 1
    assert value(answer, "headwater_jobs_finished_total", kind="sync", status="partially_succeeded") == 1
    assert value(answer, "headwater_job_attempts_total", kind="sync", outcome="partially_succeeded") == 1
    assert value(answer, "headwater_items_synced_total", type="scripted") == 7
    assert value(answer, "headwater_item_errors_total", type="scripted") == 1
    assert value(answer, "headwater_job_run_seconds_count", kind="sync") == 1
    assert value(answer, "headwater_job_run_seconds_bucket", kind="sync", le="+Inf") == 1
    row = connection.execute("select extract(epoch from measured_at)::float as at from measurement").fetchone()
    assert row is not None
    assert value(answer, "headwater_measured_timestamp_seconds") == pytest.approx(row["at"], abs=0.001)


def test_counters_are_there_before_anything_is_counted(watched: Api) -> None:
    """A rate sees the first failure only as a step from zero."""
    answer = ask(watched)
    assert value(answer, "headwater_jobs_finished_total", kind="connection_test", status="failed") == 0
    assert value(answer, "headwater_job_lease_losses_total", kind="sync") == 0
    assert value(answer, "headwater_items_synced_total", type="s3") == 0
    assert value(answer, "headwater_job_start_seconds_bucket", kind="sync", le="0.1") == 0


def test_it_is_text_or_openmetrics(watched: Api, synced: UUID) -> None:
    """Both as their own parsers read them; the one of OpenMetrics is strict about order, names and bounds."""
    text, strict = ask(watched), ask(watched, accept="application/openmetrics-text; version=1.0.0")
    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert strict.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    expected = {family.name.removesuffix("_total") for family in (MEASURED_AT, *FAMILIES)}
    assert {family.name for family in openmetrics.text_string_to_metric_families(strict.text)} == expected
    assert {family.name for family in parser.text_string_to_metric_families(text.text)} == expected


def test_everything_that_is_measured_has_a_family(
    watched: Api, connection: Connection, scheduling: Connection, working: Connection, synced: UUID
) -> None:
    """A name that is misspelt on one side would be lost on the way."""
    tally_more(connection, scheduling)
    db.run(working, tallies.refused({"malformed": 1}))
    rows = connection.execute(
        """
        select name from tally
        union select gauge ->> 'name' from measurement, jsonb_array_elements(gauges) as gauge
        """
    )
    written = {row["name"].removesuffix("_bucket").removesuffix("_sum") for row in rows}
    assert written == {family.name for family in FAMILIES}


def tally_more(connection: Connection, scheduling: Connection) -> None:
    """Let the sync be tallied once more, now for its source too, and a lease have been lost."""
    connection.execute("update job set tallied = false where finished_at is not null")
    connection.execute("update job_lease set until = now() - interval '1 second'")
    lifecycle.reap(scheduling, settings=SETTINGS)
    tallies.add(scheduling, per_source=True)


def test_no_organization_and_no_source_is_named(
    watched: Api, synced: UUID, organization: CreatedOrganization, project: dict[str, str]
) -> None:
    """Sums over all of them tell nothing of one."""
    text = ask(watched).text
    assert "data_source=" not in text
    for told in ("Acme", "org_", "dsrc_", "proj_", str(organization.organization_id), str(synced), synced.hex):
        assert told not in text


def test_an_operator_may_want_each_source_by_its_public_id(
    watched: Api, connection: Connection, scheduling: Connection, synced: UUID
) -> None:
    """As its users and the API name it."""
    tally_more(connection, scheduling)
    source_id = ids.encode("dsrc", synced)
    assert value(ask(watched), "headwater_source_items_synced_total", type="scripted", data_source=source_id) == 7


def test_a_database_that_is_away_is_no_answer(watched: Api, superuser: str, database: str) -> None:
    """503: Prometheus takes the target for down."""
    name = database.rpartition("/")[2]
    with db.connect(superuser, application="tests") as aside:
        aside.execute(f'alter database "{name}" allow_connections false')
        try:
            aside.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
            answer = ask(watched)
        finally:
            aside.execute(f'alter database "{name}" allow_connections true')
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
