"""Pages of a list of many sources: in their order, and read as pages whichever plan the server takes.

The driver prepares what the API sends, and the server may then plan a statement once, for any values: without knowing
that one organization has most of all.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import filling
import httpx2
import making
import psycopg
import pytest
from sqlalchemy import Engine, event

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection

SIZES: Final = filling.Sizes(organizations=100, sources=10_000, jobs=100, files=100)
# What a page of 25 may read of one table.
MOST_READ: Final = 250


@pytest.fixture(scope="module")
def filled(database: str, organization: CreatedOrganization) -> str:
    """7,000 sources of the organization: some deleted, a third never synced, many alike."""
    with db.connect(database, application="tests") as connection:
        project_id = making.make_project(connection, organization.organization_id)
        owner = filling.Owner(organization.organization_id, organization.member_id, project_id)
        filling.fill(database, SIZES, owner)
        connection.execute("update data_source set deleted_at = now() where hashtext(id::text) % 20 = 0")
        connection.execute(
            "update data_source_totals set item_count = item_count / 100,"
            " last_sync_at = case when hashtext(data_source_id::text) % 3 <> 0 then date_trunc('day', last_sync_at) end"
        )
        connection.execute("vacuum analyze")
    return database


@pytest.mark.parametrize("field", ["item_count", "last_sync_at"])
@pytest.mark.parametrize("direction", ["", "-"])
def test_what_jobs_found_orders_every_live_source_once(
    filled: str, client: httpx2.Client, connection: Connection, organization: CreatedOrganization,
    field: str, direction: str,
) -> None:  # fmt: skip
    """From page to page, with many that are alike; those without a value come last either way."""
    word = "desc" if direction else "asc"
    expected = connection.execute(
        "select s.id from data_source s join data_source_totals t on t.data_source_id = s.id"
        " where s.organization_id = %(organization_id)s and s.deleted_at is null"
        f" order by t.{field} {word} nulls last, s.id {word}",  # type: ignore[arg-type]
        {"organization_id": organization.organization_id},
    ).fetchall()
    query = {"sort": f"{direction}{field}", "page_size": 200}
    found = [source["id"] for page in _pages(client, query, most=50) for source in page["data"]]
    assert found == [ids.encode("dsrc", row["id"]) for row in expected]


@pytest.mark.parametrize(
    "query",
    [
        {}, {"sort": "created_at"}, {"sort": "name"}, {"sort": "-updated_at"}, {"sort": "item_count"},
        {"sort": "-item_count"}, {"sort": "-error_count"}, {"sort": "last_sync_at"}, {"sort": "-last_sync_at"},
        {"type": "gcs"}, {"type": "file_upload"}, {"env": "staging"}, {"env": "test"},
    ],
    ids=str,
)  # fmt: skip
def test_a_page_reads_pages(
    filled: str, client: httpx2.Client, organization: CreatedOrganization, query: dict[str, str]
) -> None:
    """The first one and the next, planned for these values and for any."""
    with _watching() as sent:
        assert len(_pages(client, query, most=2)) > 0
    assert len(sent) > 0
    with db.connect(
        making.as_service(filled, "api"), application="tests", organization_id=organization.organization_id
    ) as connection:
        much = [
            (mode, text, table, rows)
            for mode in ("force_custom_plan", "force_generic_plan")
            for text, values in sent.items()
            for table, rows in _read(connection, text, values, mode).items()
            if rows > MOST_READ
        ]
    assert much == []


def _pages(client: httpx2.Client, query: dict[str, Any], *, most: int) -> list[dict[str, Any]]:
    pages = [client.get("data-sources", params=query).raise_for_status().json()]
    while len(pages) < most and (cursor := pages[-1]["next_cursor"]):
        pages.append(client.get("data-sources", params={**query, "cursor": cursor}).raise_for_status().json())
    return pages


@contextmanager
def _watching() -> Iterator[dict[str, Any]]:
    """What the API reads of sources through its engine meanwhile."""
    sent: dict[str, Any] = {}

    def watch(_connection: Any, _cursor: Any, text: str, parameters: Any, *_: Any) -> None:
        if "FROM data_source" in text or "FROM sealed_credential" in text:
            sent[text] = parameters

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", watch)


def _read(connection: Connection, text: str, values: dict[str, Any], mode: str) -> dict[str, float]:
    """How many rows of each table and index one run of it reads."""
    connection.execute(f"set plan_cache_mode = {mode}")
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%")
    connection.execute(f"prepare looked_at as {numbered}".encode())
    arguments = f"({', '.join(f'%({name})s' for name in names)})" if names else ""
    row = (
        psycopg.ClientCursor(connection, row_factory=psycopg.rows.dict_row)
        .execute(f"explain (analyze, timing off, format json) execute looked_at {arguments}".encode(), values)
        .fetchone()
    )
    connection.execute("deallocate looked_at")
    assert row is not None
    read: dict[str, float] = {}
    for node in _nodes(row["QUERY PLAN"][0]["Plan"]):
        if table := node.get("Relation Name", node.get("Index Name")):
            removed = sum(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter", "Index Recheck"))
            read[table] = read.get(table, 0) + (node["Actual Rows"] + removed) * node["Actual Loops"]
    return read


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
