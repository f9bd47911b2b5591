"""The history of a data source over HTTP."""

import csv
import io
import json
from typing import Any

import httpx2
import pytest

from headwater import db, ids


@pytest.fixture
def path(client: httpx2.Client, sources: str, source: dict[str, Any]) -> str:
    """The path of a history of three lines."""
    path = f"{sources}/{source['id']}"
    client.patch(path, json={"tags": ["a"]}, headers={"If-Match": "*"})
    client.post(f"{path}/test")
    return f"{path}/events"


def test_a_history_is_read_newest_first_page_by_page(client: httpx2.Client, path: str) -> None:
    """Acts of people and of jobs, each line once."""
    acts: list[str] = []
    parameters: dict[str, Any] = {"page_size": 2}
    while True:
        page = client.get(path, params=parameters).json()
        acts += [event["act"] for event in page["data"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert acts == ["job.submitted", "data_source.updated", "data_source.created"]


def test_a_line_says_who_and_which_fields(client: httpx2.Client, path: str) -> None:
    """With the job, where there is one."""
    submitted, updated, _ = client.get(path).json()["data"]
    assert submitted["job_id"].startswith("job_")
    assert (updated["actor"]["email"], updated["job_id"]) == ("ada@example.com", None)
    assert updated["details"] == {"fields": ["tags"], "version": 1}


def test_ndjson_and_csv_hold_the_same_lines(client: httpx2.Client, path: str) -> None:
    """Chosen by Accept; the whole history in one answer."""
    whole = client.get(path).json()["data"]
    lines = client.get(path, headers={"Accept": "application/x-ndjson"})
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == whole
    table = client.get(path, headers={"Accept": "text/csv, application/json;q=0.5"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["id"], row["actor_email"]) for row in rows] == [
        (event["id"], event["actor"]["email"]) for event in whole
    ]


def test_a_bad_cursor_is_refused_before_a_stream_begins(client: httpx2.Client, path: str) -> None:
    """400, in every form."""
    for accept in ("application/json", "application/x-ndjson", "text/csv"):
        answer = client.get(path, params={"cursor": "nonsense"}, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_a_long_history_is_streamed_whole(
    client: httpx2.Client, path: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """More lines than a batch: none is lost, none comes twice."""
    connection.execute(
        "insert into event (organization_id, data_source_id, act)"
        " select organization_id, id, 'job.requeued' from data_source, generate_series(1, 2500) where id = %s",
        (ids.decode("dsrc", source["id"]),),
    )
    lines = client.get(path, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 2503


def test_another_organization_sees_no_history(other_client: httpx2.Client, path: str) -> None:
    """404."""
    assert other_client.get(path).status_code == 404
