"""What is asked of both databases: every kind of list, at its beginning, deep inside and at its end, and what changes.

An `Ask` names a request by what it is for; `Side` knows what to put into it on its database, so that both answer with
as many rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import httpx2
from engines import Engine
from starlette.requests import Request

from headwater import clock, db, ids
from headwater.access.api_keys import read_pepper
from headwater_api import pagination

METRICS_TOKEN: Final = "a token of the bench's"  # noqa: S105 - of servers that live for minutes
_BASE: Final = "/api/v1"


@dataclass(frozen=True)
class Ask:
    """One request: what is measured of it stands beside the same on the other side."""

    name: str
    make: Callable[["Side"], httpx2.Response]


@dataclass(frozen=True)
class List:
    """A list, and where it can be entered: `places` is SQL that gives sort values, newest page first.

    `{source}` in its path is the data source that has most of all.
    """

    path: str
    places: str


_JOBS: Final = List("/jobs", "select created_at, id from job where organization_id = %(organization)s order by 1, 2")
_SOURCES: Final = List(
    "/data-sources", "select created_at, id from data_source where organization_id = %(organization)s order by 1, 2"
)
_EVENTS: Final = List("{source}/events", "select number from event where data_source_id = %(source)s order by 1")
_AUDIT: Final = List(
    "/audit-log", "select created_at, number from audit_entry where organization_id = %(organization)s order by 1, 2"
)
_DELIVERIES: Final = List(
    "/webhooks/{webhook}/deliveries", "select created_at, id from webhook_delivery order by created_at, id"
)
_ITEMS: Final = List(
    "{source}/items",
    "select path, 50 as number, 1 as snapshot from load where data_source_id = %(source)s order by path desc",
)
_REJECTS: Final = List(
    "{source}/rejects",
    "select path, 1 as number, 1 as snapshot from load where data_source_id = %(source)s order by path desc",
)
_FILES: Final = List("{source}/files", "select path from file where data_source_id = %(source)s order by path desc")
_PLACED: Final = (_ITEMS, _REJECTS, _FILES)


class Side:
    """One database behind its API."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.client = engine.client
        self.organization_id = engine.organization.organization_id
        self._cursors: dict[tuple[str, float], str] = {}

    def get(self, path: str, /, **query: Any) -> httpx2.Response:
        """`{source}` and `{webhook}` in `path` are those that have most."""
        return self.client.get(self._path(path).lstrip("/"), params=query)

    def enter(self, listed: List, depth: float, **query: Any) -> httpx2.Response:
        """A page: `depth` 0 is the first, 1 the last, and in between as far behind."""
        if depth:
            query["cursor"] = self._cursor(listed, depth, query)
        return self.get(listed.path, **query)

    def _path(self, path: str) -> str:
        return path.format(source=self.source_path, webhook=self.webhook)

    def _cursor(self, listed: List, depth: float, query: dict[str, Any]) -> str:
        key = (f"{listed.path}?{urlencode(query)}", depth)
        if key not in self._cursors:
            self._cursors[key] = self._cursors_of(listed.path, query).write(self._place(listed, depth))
        return self._cursors[key]

    def _place(self, listed: List, depth: float) -> list[Any]:
        named = {"organization": self.organization_id, "source": self.source_id}
        count = self.one(f"select count(*) from ({listed.places}) p", **named)["count"]
        offset = min(10, count // 2) if depth == 1 else int(count * (1 - depth))
        row = self.one(f"{listed.places} offset {offset} limit 1", **named)
        return [row | {"begun_at": clock.rfc3339(clock.now())}] if listed in _PLACED else list(row.values())

    def _cursors_of(self, path: str, query: dict[str, Any]) -> pagination.Cursors:
        """As the API would make them for this request."""
        pepper = read_pepper(self.engine.pepper_file)
        return pagination.cursors(
            Request(
                {
                    "type": "http",
                    "method": "GET",
                    "path": _BASE + self._path(path),
                    "query_string": urlencode(query).encode(),
                    "headers": [],
                    "app": SimpleNamespace(state=SimpleNamespace(services=SimpleNamespace(pepper=pepper))),
                    "state": {"actor": SimpleNamespace(organization_id=self.organization_id, project_ids=None)},
                }
            )
        )

    def one(self, query: str, **parameters: Any) -> dict[str, Any]:
        """The first row, as the superuser."""
        row = db.run(self.engine.connection, db.Statement(query, parameters)).fetchone()  # type: ignore[arg-type]
        assert row is not None, query
        return row

    @cached_property
    def source(self) -> dict[str, Any]:
        """The data source that has most of all."""
        return self.one("select id, project_id from data_source order by id limit 1")

    @property
    def source_id(self) -> UUID:
        source_id: UUID = self.source["id"]
        return source_id

    @cached_property
    def source_path(self) -> str:
        project = ids.encode("proj", self.source["project_id"])
        return f"/projects/{project}/data-sources/{ids.encode('dsrc', self.source_id)}"

    @cached_property
    def webhook(self) -> str:
        return ids.encode("hook", self.one("select id from webhook")["id"])

    @cached_property
    def jobs(self) -> list[str]:
        """Some that have ended, from the whole time."""
        rows = self.engine.connection.execute(
            "select id from job where organization_id = %s and finished_at is not null"
            " and mod(hashtext(id::text), %s) = 0 limit 20",
            (self.organization_id, max(1, self.one("select count(*) from job")["count"] // 100)),
        )
        return [ids.encode("job", row["id"]) for row in rows]

    @cached_property
    def load(self) -> dict[str, Any]:
        """One in the middle."""
        return self.one(
            "select id, path, job_id from load where data_source_id = %(source)s order by path offset ("
            " select count(*) / 2 from load where data_source_id = %(source)s) limit 1",
            source=self.source_id,
        )

    @cached_property
    def narrow(self) -> httpx2.Client:
        """Whose key is limited to one project."""
        project = ids.encode("proj", self.source["project_id"])
        body = {"name": "narrow", "role": "viewer", "project_ids": [project]}
        key = self.client.post("api-keys", json=body).raise_for_status().json()["key"]
        return httpx2.Client(
            base_url=self.client.base_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
        )

    def submit(self) -> httpx2.Response:
        """A job, that waits."""
        return self.client.post(f"{self.source_path}/test".lstrip("/"))

    def cancel(self, job: str) -> httpx2.Response:
        return self.client.post(f"jobs/{job}/cancel")


def _pages(listed: List, name: str, **query: Any) -> Iterator[Ask]:
    for where, depth in (("first", 0.0), ("deep", 0.5), ("last", 1.0)):
        yield Ask(f"{name}, {where} page", lambda side, depth=depth: side.enter(listed, depth, **query))  # type: ignore[misc]


def _filter(path: str, name: str, /, **query: Any) -> Ask:
    return Ask(name, lambda side: side.get(path, **{key: v(side) if callable(v) else v for key, v in query.items()}))


def reads() -> Iterator[Ask]:
    """What only reads."""
    yield Ask("who am I", lambda side: side.get("/me"))
    yield Ask("a job", lambda side: side.get(f"/jobs/{side.jobs[0]}"))
    yield Ask("a job that has ended, waited for", lambda side: side.get(f"/jobs/{side.jobs[-1]}", wait=5))
    yield Ask("a job's attempts", lambda side: side.get(f"/jobs/{side.jobs[1]}/attempts"))
    yield Ask("a job's events", lambda side: side.get(f"/jobs/{side.jobs[1]}/events"))
    yield Ask("a job's rejects", lambda side: side.get(f"/jobs/{ids.encode('job', side.load['job_id'])}/rejects"))
    yield from _pages(_JOBS, "jobs")
    yield from _job_filters()
    yield from _pages(_SOURCES, "data sources", page_size=5)
    yield from _source_filters()
    yield Ask("a data source", lambda side: side.get("{source}"))
    yield from _pages(_EVENTS, "events of a source")
    yield from _pages(_FILES, "files")
    yield _filter(_FILES.path, "files, by prefix", prefix=lambda side: side.load["path"][:-7])
    yield _filter(_FILES.path, "files, by a state that none has", state="missing")
    yield from _pages(_ITEMS, "items")
    yield _filter(_ITEMS.path, "items, of a file", path=lambda side: side.load["path"])
    yield _filter(
        _ITEMS.path, "items, of a job", page_size=5, job_id=lambda side: ids.encode("job", side.load["job_id"])
    )
    yield Ask("an item", lambda side: side.get(f"{{source}}/items/{ids.encode('item', ids.pack(side.load['id'], 50))}"))
    yield from _pages(_REJECTS, "rejects", page_size=5)
    yield from _pages(_AUDIT, "audit log")
    yield _filter(_AUDIT.path, "audit log, an act that none did", act="project.delete")
    yield _filter(_AUDIT.path, "audit log, of a job", subject=lambda side: side.jobs[2])
    yield _filter(_AUDIT.path, "audit log, before all", before="2020-01-01T00:00:00Z")
    yield from _pages(_DELIVERIES, "deliveries")
    yield _filter(_DELIVERIES.path, "deliveries, of a job", job_id=lambda side: side.jobs[3])
    yield _filter(_DELIVERIES.path, "deliveries, a status that none has", status="failed")
    yield Ask("metrics", _metrics)


def _job_filters() -> Iterator[Ask]:
    source = {"data_source_id": lambda side: ids.encode("dsrc", side.source_id)}
    project = {"project_id": lambda side: ids.encode("proj", side.source["project_id"])}
    yield _filter("/jobs", "jobs, oldest first", sort="created_at")
    yield _filter("/jobs", "jobs, by status", status="failed", page_size=1)
    yield _filter("/jobs", "jobs, by a rare status", status="cancelled", page_size=1)
    yield _filter("/jobs", "jobs, by kind", kind="sync", page_size=10)
    yield _filter("/jobs", "jobs, by a kind that none has", kind="table_discovery")
    yield _filter("/jobs", "jobs, live ones", status="queued,running")
    yield _filter("/jobs", "jobs, of a source", page_size=5, **source)
    yield _filter("/jobs", "jobs, of a source by a status that none has", status="running", **source)
    yield _filter("/jobs", "jobs, of a project", page_size=5, **project)
    yield _filter("/jobs", "jobs, of a project by a status that none has", status="running", **project)
    yield _filter("/jobs", "jobs, after a moment", created_after=clock.rfc3339(clock.now()))
    yield _filter("/jobs", "jobs, by ids", ids=lambda side: ",".join(side.jobs[:5]))
    yield Ask("jobs, with a key of one project", lambda side: side.narrow.get("jobs", params={"page_size": 5}))


def _source_filters() -> Iterator[Ask]:
    for sort in ("name", "-updated_at", "-item_count", "last_sync_at"):
        yield _filter("/data-sources", f"data sources, sorted by {sort}", sort=sort, page_size=5)
    for name, value in (("type", "s3"), ("status", "failing"), ("tag", "team-0"), ("q", "no such name")):
        yield _filter("/data-sources", f"data sources, by {name}", page_size=1, **{name: value})
    yield Ask(
        "data sources, of a project",
        lambda side: side.get(
            "/projects/" + ids.encode("proj", side.source["project_id"]) + "/data-sources", page_size=1
        ),
    )


def _metrics(side: Side) -> httpx2.Response:
    """What Prometheus reads."""
    url = f"http://127.0.0.1:{side.engine.api_port}/metrics"
    return side.client.get(url, headers={"Authorization": f"Bearer {METRICS_TOKEN}"})


def woken(side: Side) -> httpx2.Response:
    """Cancel a job that somebody waits for: from there until he has the answer."""
    job = side.submit().raise_for_status().json()["id"]
    answers: list[httpx2.Response] = []
    with httpx2.Client(
        base_url=side.client.base_url, headers=dict(side.client.headers), trust_env=False, timeout=30
    ) as waiting:
        waiter = Thread(target=lambda: answers.append(waiting.get(f"jobs/{job}", params={"wait": 20})))
        waiter.start()
        side.cancel(job).raise_for_status()
        waiter.join()
    return answers[0]
