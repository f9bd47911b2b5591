"""How much of a full database each statement reads: no table from end to end, and for a page no more than pages.

The statements are found, not named: every function of the domain that gives one, and all that the API sends while every
list of its is asked for. Each is planned by the role of each service that may run it, in a database whose statistics
say that it is a thousand times as full as it is.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import filling
import making
import psycopg
import pytest
import sampling
import serving
from calling import SAMPLES, World

from headwater import clock, db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.catalogue import inventory, loads, reading
from headwater.db import Connection, Row, Statement
from headwater.jobs import pruning
from headwater.jobs import reading as jobs
from headwater_cli import logins
from headwater_cli.logins import Service

BIG: Final = {
    "job", "job_attempt", "job_progress", "job_summary", "event", "audit_entry", "audit_chain", "webhook_delivery",
    "webhook_attempt", "file", "load", "item", "item_key", "reject", "idempotency_record", "sealed_credential",
    "data_source", "data_source_version", "data_source_totals",
}  # fmt: skip
SIZES: Final = filling.Sizes(organizations=10, sources=50, jobs=2_000, files=2_500, items_per_file=10)
FULLER: Final = 1_000
# What a page of 25 may read of one table: some pages, where it puts them together of many.
MOST_READ: Final = 250
# Rows that a page may gather before it gives the first one, at a thousand times the size.
MOST_GATHERED: Final = 25_000
# Times after which the server has decided whether it plans for any values.
_UNTIL_KEPT: Final = 7
_GATHERING: Final = {"Sort", "Hash", "Bitmap Heap Scan", "HashAggregate"}


@dataclass(frozen=True)
class Filled:
    """A database that says to be full, and ids of what is in it."""

    url: str
    organization: CreatedOrganization
    connection: Connection
    job: Row
    load: Row
    webhook_id: UUID

    def statements(self) -> dict[str, Statement]:
        """Those of the domain, about what is in it."""
        return sampling.statements(sampling.samples(job=self.job, load=self.load, webhook_id=self.webhook_id))

    def as_service(self, service: Service) -> Connection:
        """As this service's processes connect, acting for the organization."""
        return db.connect(
            making.as_service(self.url, service),
            application="tests",
            organization_id=self.organization.organization_id,
        )


@pytest.fixture(scope="module")
def filled(database: str, organization: CreatedOrganization) -> Iterator[Filled]:
    """Analyzed, and then said to be a thousand times as large."""
    with db.connect(database, application="tests") as connection:
        # An autovacuum in between would say the truth.
        for row in connection.execute("select relname from pg_class where relname = any(%s)", (list(BIG),)).fetchall():
            connection.execute(f"alter table {row['relname']} set (autovacuum_enabled = false)")
        project_id = making.make_project(connection, organization.organization_id)
        owner = filling.Owner(organization.organization_id, organization.member_id, project_id)
        filling.fill(database, SIZES, owner)
        _multiply_statistics(connection, FULLER)
        source = _one(connection, "select id from data_source order by id limit 1")
        job = _one(connection, "select * from job where data_source_id = %s order by id limit 1", source["id"])
        load = _one(connection, "select * from load where data_source_id = %s order by id limit 1", source["id"])
        webhook_id = _one(connection, "select id from webhook")["id"]
        yield Filled(database, organization, connection, job, load, webhook_id)


def _multiply_statistics(connection: Connection, by: float) -> None:
    connection.execute(
        "update pg_class set reltuples = reltuples * %s where relnamespace = 'public'::regnamespace"
        " and relkind in ('r', 'i') and reltuples > 0",
        (by,),
    )


def _one(connection: Connection, query: Any, *parameters: Any) -> Row:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row


# What is wrong with a plan.


def scans(connection: Connection, statement: Statement) -> set[str]:
    """The big tables that a statement would read from end to end."""
    return {
        node["Relation Name"]
        for node in _plan(connection, statement, "format json")
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
    }


def gathers(connection: Connection, statement: Statement) -> list[str]:
    """What a page reads, or would read in a full database, beyond pages. Nothing of it stays."""
    with connection.transaction(force_rollback=True):
        nodes = _plan(connection, statement, "analyze, timing off, format json")
        nodes += _plan_in_the_end(connection, statement)
    return [fault for node in nodes if (fault := _read(node) or _gathered(node))]


def _plan(connection: Connection, statement: Statement, options: str) -> list[dict[str, Any]]:
    """The nodes of its plan, as it is made for these values."""
    cursor = psycopg.ClientCursor(connection, row_factory=psycopg.rows.dict_row)
    row = cursor.execute(f"explain ({options}) {statement.text}", statement.parameters).fetchone()
    assert row is not None
    return list(_nodes(row["QUERY PLAN"][0]["Plan"]))


def _plan_in_the_end(connection: Connection, statement: Statement) -> list[dict[str, Any]]:
    """The same of the plan that the server keeps, once the driver has prepared it and sent it some times."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement.text)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement.text)
    connection.execute(f"prepare kept as {numbered.replace('%%', '%')}".encode())
    arguments = f"({', '.join(f'%({name})s' for name in names)})" if names else ""
    kept = Statement(f"execute kept {arguments}", statement.parameters)  # type: ignore[arg-type]
    for _ in range(_UNTIL_KEPT):
        nodes = _plan(connection, kept, "analyze, timing off, format json")
    connection.execute("deallocate kept")
    return nodes


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _read(node: dict[str, Any]) -> str | None:
    removed = sum(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter", "Index Recheck"))
    read = (node["Actual Rows"] + removed) * node["Actual Loops"]
    table = node.get("Relation Name", node.get("Index Name"))
    return f"reads {read:,.0f} rows of {table}" if table and read > MOST_READ else None


def _gathered(node: dict[str, Any]) -> str | None:
    if node["Node Type"] in _GATHERING and node["Plan Rows"] > MOST_GATHERED:
        return f"{node['Node Type']} of {node['Plan Rows']:,} rows"
    return None


@contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """What the API's own connections send meanwhile: texts, and the parameters that each had last."""
    seen: dict[str, Any] = {}

    def watch(cursor: Any, query: Any, parameters: Any = None) -> None:
        text = query.removeprefix(f"{db.SET_ORGANIZATION}; ").strip() if isinstance(query, str) else ""
        if _ACTS.match(text) and cursor.connection.info.user.startswith(logins.role("api")):
            seen[text] = parameters

    with pytest.MonkeyPatch.context() as patch:
        execute, execute_async = psycopg.Cursor.execute, psycopg.AsyncCursor.execute

        def watched(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            watch(self, query, *arguments)
            return execute(self, query, *arguments, **options)

        async def watched_async(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            watch(self, query, *arguments)
            return await execute_async(self, query, *arguments, **options)

        patch.setattr(psycopg.Cursor, "execute", watched)
        patch.setattr(psycopg.AsyncCursor, "execute", watched_async)
        yield seen


_ACTS: Final = re.compile(r"(select|with|insert|update|delete)\s", re.IGNORECASE)


def lists(filled: Filled) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every list with each of its filters and sorts."""
    job, load = ids.encode("job", filled.job["id"]), filled.load
    project, source = ids.encode("proj", filled.job["project_id"]), ids.encode("dsrc", filled.job["data_source_id"])
    place = f"projects/{project}/data-sources/{source}"
    moment = clock.rfc3339(filled.job["created_at"])
    member = ids.encode("user", filled.job["created_by"])
    yield from [("jobs", query) for query in (
        {}, {"sort": "created_at"}, {"status": "cancelled"}, {"status": "queued,running"}, {"kind": "table_discovery"},
        {"kind": "sync", "status": "failed"}, {"data_source_id": source}, {"project_id": project}, {"ids": job},
        {"data_source_id": source, "status": "failed"}, {"project_id": project, "status": "failed"},
        {"created_after": moment},
    )]  # fmt: skip
    yield f"jobs/{job}/rejects", {}
    yield from [(f"{place}/{name}", {}) for name in ("events", "files", "items", "rejects")]
    yield from [(f"{place}/files", query) for query in ({"prefix": load["path"]}, {"state": "missing"})]
    yield from [(f"{place}/items", query) for query in (
        {"path": load["path"]}, {"job_id": ids.encode("job", load["job_id"])}, {"created_after": moment}
    )]  # fmt: skip
    yield from [("audit-log", query) for query in (
        {"act": "project.delete"}, {"actor": member}, {"subject": job}, {"before": moment}, {"after": moment},
    )]  # fmt: skip
    hook = ids.encode("hook", filled.webhook_id)
    yield from [(f"webhooks/{hook}/deliveries", query) for query in ({}, {"job_id": job}, {"status": "failed"})]


@pytest.fixture(scope="module")
def asked(
    filled: Filled, pepper_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the API sends for one good request of each operation, and for two pages of every list."""
    with (
        serving.api(
            HEADWATER_DATABASE_URL=making.as_service(filled.url, "api"),
            HEADWATER_PEPPER_FILE=str(pepper_file),
            HEADWATER_UPLOADS_DIR=str(tmp_path_factory.mktemp("uploads")),
        ) as api,
        api.client(filled.organization.api_key) as admin,
    ):
        world = World(admin, filled.organization, filled.connection)
        with watching() as of_lists:
            for path, query in lists(filled):
                answer = admin.get(path, params=query)
                assert answer.status_code == 200, answer.text
                if cursor := answer.json()["next_cursor"]:
                    assert admin.get(path, params={**query, "cursor": cursor}).status_code == 200
        with watching() as of_operations:
            for sample in SAMPLES.values():
                assert sample(world).by(admin).status_code < 500
    return of_lists, of_operations


@pytest.fixture
def sent(asked: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """All of it."""
    return asked[0] | asked[1]


@pytest.fixture
def sent_for_lists(asked: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """For lists alone."""
    return asked[0]


def test_statements_of_the_domain(filled: Filled) -> None:
    """None reads a table from end to end, by whichever role."""
    statements = filled.statements()
    wrong, by_nobody = {}, set(statements)
    for service in logins.SERVICES:
        with filled.as_service(service) as connection:
            for scratch in (inventory.create(), inventory.analyze(), loads.create_scratch()):
                connection.execute(scratch.text)
            for name, statement in statements.items():
                try:
                    wrong[name, service] = scans(connection, statement)
                except psycopg.errors.InsufficientPrivilege:
                    continue
                by_nobody.discard(name)
    assert {name: tables for name, tables in wrong.items() if tables} == {}
    assert by_nobody == set()


def test_statements_of_the_api(filled: Filled, sent: dict[str, Any]) -> None:
    """None of all that it was seen to send reads a table from end to end."""
    with filled.as_service("api") as connection:
        found = {text: scans(connection, Statement(text, values)) for text, values in sent.items()}
    assert {text: tables for text, tables in found.items() if tables} == {}


def test_pages(filled: Filled, sent_for_lists: dict[str, Any]) -> None:
    """Each page of each list, with each filter, reads some pages and no more."""
    with filled.as_service("api") as connection:
        found = {text: gathers(connection, Statement(text, values)) for text, values in sent_for_lists.items()}
    assert {text: faults for text, faults in found.items() if faults} == {}


def test_functions_of_the_database(filled: Filled) -> None:
    """What is planned inside of them shows as scans, whether it is planned for these values or for any."""
    functions = {
        row["proname"]
        for row in filled.connection.execute(
            "select proname from pg_proc where pronamespace = 'public'::regnamespace"
            " and prorettype <> 'trigger'::regtype and proname not in ('uuid_v7', 'current_organization')"
        )
    }
    scanned = {}
    with filled.as_service("api") as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            connection.execute(f"set plan_cache_mode = {mode}")
            for statement in (*filled.statements().values(), _former_submit(filled), *_OF_STRANGERS):
                if names := set(re.findall(r"(\w+)\(", statement.text)) & functions:
                    scanned[mode, *names] = _scanned_by(connection, statement)
    assert {names: tables for names, tables in scanned.items() if tables} == {}
    assert {name for _, *names in scanned for name in names} == functions


def _former_submit(filled: Filled) -> Statement:
    """What the API of the version before this one calls."""
    submit = sampling.samples(job=filled.job, load=filled.load, webhook_id=filled.webhook_id)["requests"][0]
    request = submit | {"organization_id": str(filled.organization.organization_id)}
    return Statement("select job_submit(%(request)s)", {"request": db.json(request)})


# These are called before anybody is known.
_OF_STRANGERS: Final = (
    Statement("select api_key_read(%(key)s, %(hash)s)", {"key": ids.new(), "hash": b"h"}),
    Statement("select api_key_used(%(key)s, %(key)s)", {"key": ids.new()}),
    Statement(
        "select member_sign_in(%(organization)s, 'issuer', 'subject', 'eve@example.com', 'Eve', 'viewer', 'tests', '')",
        {"organization": ids.new()},
    ),
)


def _scanned_by(connection: Connection, statement: Statement) -> set[str]:
    """The big tables that were read from end to end while it ran; nothing of it stays."""
    counts = "select relname, seq_scan from pg_stat_xact_user_tables where relname = any(%s) and seq_scan > 0"
    with connection.transaction(force_rollback=True):
        before = {row["relname"]: row["seq_scan"] for row in connection.execute(counts, (list(BIG),))}
        connection.execute(statement.text, statement.parameters)
        after = {row["relname"]: row["seq_scan"] for row in connection.execute(counts, (list(BIG),))}
    return {table for table, count in after.items() if count > before.get(table, 0)}


def test_a_scan_shows(filled: Filled) -> None:
    """Without its index, pruning reads all jobs."""
    statement = pruning.delete_ended(retention_days=90)
    with _without(filled, "index ix_job_finished", "scheduler"):
        assert scans(filled.connection, statement) == {"job"}


@pytest.mark.parametrize(
    ("dropped", "filters"),
    [
        ("index ix_job_filter", {"statuses": ["cancelled"]}),
        ("index ix_job_project", {"project_id": ids.new()}),
        ("index ix_job_source", {"data_source_id": ids.new()}),
    ],
)
def test_a_filter_without_an_index_shows(filled: Filled, dropped: str, filters: dict[str, Any]) -> None:
    """It looks through all jobs of the organization for what is rare."""
    page = jobs.page(organization_id=filled.organization.organization_id, limit=26, **filters)
    with _without(filled, dropped, "api"):
        assert gathers(filled.connection, page) != []


def test_what_the_planner_does_not_know_shows(filled: Filled) -> None:
    """Of a source that it takes for small it gathers everything; at its true size this one looks it."""
    page = reading.rejects(
        organization_id=filled.organization.organization_id, data_source_id=filled.job["data_source_id"], limit=26
    )
    with filled.connection.transaction(force_rollback=True):
        _multiply_statistics(filled.connection, 1 / FULLER)
        with _without(filled, "statistics if exists st_nothing", "api"):
            assert gathers(filled.connection, page) == []
        with _without(filled, "statistics st_load", "api"):
            assert gathers(filled.connection, page) != []


@contextmanager
def _without(filled: Filled, dropped: str, service: Service) -> Iterator[None]:
    """As this service, and without that."""
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(f"drop {dropped}")
        db.set_organization(filled.connection, filled.organization.organization_id)
        filled.connection.execute(f"set local role {logins.role(service)}")
        yield
