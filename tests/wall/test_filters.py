"""Two walls: without the organization in a query's condition a test notices, and row-level security holds all the same.

Every statement that the API sends is watched. Wherever it compares with the caller's organization, that comparison is
taken out, in one place at a time, and the probes that sent the statement are made again: once as a superuser, for whom
there are no policies, and once with the API's own login.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import calling
import making
import psycopg
import pytest
import serving
from calling import SAMPLES, Call, World

from headwater import db, ids
from headwater.access import api_keys, organizations
from headwater.db import Connection
from headwater.jobs import pruning
from headwater.vault.providers import KeyFile
from headwater_api.hot_lane import HotLane

# In the words of our own statements, and of SQLAlchemy's.
_FILTER = re.compile(
    r"(?:\b[a-z_]\w*\.)?organization_id (?:= %\((?:organization_id|organization_id_\d+)\)s(?:::UUID)?"
    r"|IN \(%\(organization_id_\d+_\d+\)s::UUID\))"
)
# In those of the SQL functions.
_FILTER_IN_FUNCTION = re.compile(r"(?:\b\w+\.)?organization_id = (?:organization|(?:w|new)\.organization_id)\b")

# Comparisons that no probe misses, by a part of their text, and why nothing gets through without them.
REDUNDANT = {
    "FROM project WHERE project.id = %(id_1)s::UUID AND project.organization_id = %(organization_id_1)s::UUID AND"
    " project.deleted_at IS NULL FOR NO KEY UPDATE": "what was changed is read back for the organization first",
    "FROM sealed_credential WHERE": "of sources that were looked up for the organization",
    "delete from sealed_credential where": "of a source that is locked for the organization",
    "FROM upload WHERE": "of a source that was looked up for the organization",
    "o.id = s.organization_id where s.id = %(data_source_id)s": "once more, of a source that is locked by then",
    "t.organization_id = %(organization_id)s and l.id = %(load_id)s": "of a source that was looked up before",
    "member.organization_id = %(organization_id_3)s": "whoever acted in an organization is its member",
    "audit_chain.organization_id = %(organization_id_4)s": "an entry stands in one chain",
    "data_source.deleted_at IS NULL AND data_source.project_": "in a project that was looked up before",
    "UPDATE api_key SET revoked_at": "of a member that is locked for the organization",
    "join idempotency_record r on r.organization_id = organization": "an actor is of one organization",
    "update idempotency_record r set": "an actor is of one organization",
    "delete from idempotency_record r using": "an actor is of one organization",
    "from unnest(organizations, jobs) as w (organization_id, job_id) join job j on j.id = w.job_id and"
    " j.organization_id = w.organization_id where w.organization_id": "it only sorts the pairs",
    "'job', (select to_jsonb(v) from job_view v": "of a job that is locked for the organization",
    "select id, project_id from data_source where id = any(": "jobs_submit looks each source up once more",
    "FROM webhook_delivery WHERE webhook_delivery.organization_id": "of a webhook that was looked up before",
    "where m.id = found_member.id": "of a member that was found in the organization",
}


@dataclass(frozen=True)
class Site:
    """One comparison with the caller's organization: the `index`-th in `text`, or in the SQL function `function`."""

    text: str
    index: int
    function: str | None = None

    def stripped(self, pattern: re.Pattern[str] = _FILTER) -> str:
        """The text without it."""
        matches = list(pattern.finditer(self.text))
        start, end = matches[self.index].span()
        return f"{self.text[:start]}true{self.text[end:]}"

    def __str__(self) -> str:
        found = list((_FILTER_IN_FUNCTION if self.function else _FILTER).finditer(self.text))[self.index]
        start, end = found.span()
        # However many ids are asked for, it is one statement.
        before = re.sub(r"IN \((%\(subject_id\w+\)s::UUID(, )?)+\)", "IN (...)", self.text[:start])[-260:]
        around = before + self.text[start : end + 60]
        return f"{self.function or ''} ...{' '.join(around.split())}..."


@dataclass
class Watch:
    """Sees every statement of this process, and may change one."""

    seen: set[Site] = field(default_factory=set)
    out: Site | None = None

    def __call__(self, query: Any) -> Any:
        if not isinstance(query, str):
            return query
        self.seen.update(Site(query, index) for index, _ in enumerate(_FILTER.finditer(query)))
        return self.out.stripped() if self.out is not None and self.out.text == query else query


@contextmanager
def watching() -> Iterator[Watch]:
    """Stand between the API and its driver."""
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        execute, call, run_in_one = psycopg.Cursor.execute, HotLane.call, HotLane.run_in_one

        def watched(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            return execute(self, watch(query), *arguments, **options)

        def through(statement: db.Statement) -> db.Statement:
            return replace(statement, text=watch(statement.text))

        async def watched_call(self: HotLane, statement: db.Statement) -> list[db.Row]:
            return await call(self, through(statement))

        async def watched_together(self: HotLane, *statements: db.Statement) -> list[db.Row]:
            return await run_in_one(self, *map(through, statements))

        patch.setattr(psycopg.Cursor, "execute", watched)
        patch.setattr(HotLane, "call", watched_call)
        patch.setattr(HotLane, "run_in_one", watched_together)
        yield watch


@dataclass
class Stage:
    """Two organizations; `calling` is a connection as the API has it."""

    ours: World
    theirs: World
    marks: list[str]
    calling: Connection


Probe = Callable[[Stage], bool]
"""Whether the wall held."""


def _by_path(operation: str) -> Probe:
    """All ids of the path are theirs: 404, and theirs is there as it was."""

    def probe(stage: Stage) -> bool:
        theirs = SAMPLES[operation](stage.theirs)
        before = _state(stage, theirs)
        return theirs.by(stage.ours.admin).status_code == 404 and _state(stage, theirs) == before

    return probe


def _by_one_id(operation: str, name: str) -> Probe:
    """One id of the path is theirs."""

    def probe(stage: Stage) -> bool:
        theirs, ours = SAMPLES[operation](stage.theirs), SAMPLES[operation](stage.ours)
        return ours.naming(**{name: theirs.named[name]}).by(stage.ours.admin).status_code == 404

    return probe


def _by_bad_request(operation: str) -> Probe:
    """A body and a query that are refused, about an object of theirs: that it is there is not told."""

    def probe(stage: Stage) -> bool:
        theirs = SAMPLES[operation](stage.theirs)
        bad = Call(theirs.method, theirs.path, theirs.named, {"params": {"colour": "red"}})
        return bad.by(stage.ours.admin).status_code == 404

    return probe


def _in_a_list(operation: str, **query: str) -> Probe:
    """Nothing of theirs stands in a list of ours."""

    def probe(stage: Stage) -> bool:
        call = SAMPLES[operation](stage.ours)
        # On the first page, however much the probes before have left.
        newest = _LISTED[operation.rpartition("/")[2]](stage.theirs)
        answer = Call("GET", call.path, call.named, {"params": {"page_size": 200, **query}}).by(stage.ours.admin)
        assert answer.status_code == 200, answer.text
        return not any(mark in answer.text for mark in (*stage.marks, *newest.values()))

    return probe


# What shows in a list, by the last part of its path.
_LISTED: Final[dict[str, Callable[[World], dict[str, str]]]] = {
    "projects": World.project, "members": World.member, "api-keys": World.key, "data-sources": World.source,
    "jobs": World.job, "webhooks": World.webhook, "audit-log": World.project,
}  # fmt: skip


def _in_a_body(operation: str, name: str) -> Probe:
    """An id of theirs in a body is refused."""

    def probe(stage: Stage) -> bool:
        theirs = {
            "owner_id": stage.theirs.admin.get("me").json()["member"]["id"],
            "member_id": stage.theirs.admin.get("me").json()["member"]["id"],
            "project_ids": [stage.theirs.project()["project_id"]],
        }
        call = SAMPLES[operation](stage.ours)
        call.options["json"][name] = theirs[name]
        return call.by(stage.ours.admin).status_code == 400

    return probe


def _in_a_query(path: str, parameter: str) -> Probe:
    """A filter by an id of theirs finds nothing."""

    def probe(stage: Stage) -> bool:
        source = stage.theirs.source()
        job = stage.theirs.post("projects/{project_id}/data-sources/{data_source_id}/test".format(**source))
        value = {
            "project_id": source["project_id"],
            "data_source_id": source["data_source_id"],
            "ids": job["id"],
            "actor": stage.theirs.admin.get("me").json()["member"]["id"],
            "subject": source["data_source_id"],
        }[parameter]
        return bool(stage.ours.admin.get(path, params={parameter: value}).json()["data"] == [])

    return probe


def _upload_head(method: str, path: str) -> Probe:
    """A body that is refused before a byte is read says nothing of a source of theirs."""

    def probe(stage: Stage) -> bool:
        named = stage.theirs.source("file_upload") | {"name": "a.csv"}
        options: dict[str, Any] = {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
        if method == "POST":
            options["params"] = {"name": "a.csv"}
        return Call(method, path, named, options).by(stage.ours.admin).status_code == 404

    return probe


def _sealing_key(stage: Stage) -> bool:
    """A secret of ours is sealed to a key of ours, saved or not, though theirs is newer."""
    ours = SAMPLES[f"PUT {_SOURCE}/credentials"](stage.ours)
    assert ours.by(stage.ours.admin).status_code == 200
    body = {"type": "s3", "config": calling.S3, "credentials": {"access_key_id": "id", "secret_access_key": "secret"}}
    path = "projects/{project_id}/data-sources/test".format(**stage.ours.project())
    assert stage.ours.admin.post(path, json=body).status_code == 202
    rows = stage.ours.connection.execute(
        """
        select distinct k.organization_id from sealed_credential c join organization_key k on k.id = c.key_id
        where c.organization_id = %s
        """,
        (stage.ours.organization.organization_id,),
    ).fetchall()
    stage.ours.connection.execute(
        "delete from sealed_credential where organization_id = %s", (stage.ours.organization.organization_id,)
    )
    return [row["organization_id"] for row in rows] == [stage.ours.organization.organization_id]


def _key_use(stage: Stage) -> bool:
    """Nobody notes the use of a key that is not his organization's."""
    key = ids.decode("key", stage.theirs.key()["key_id"])
    stage.calling.execute("select api_key_used(%s, %s)", (stage.ours.organization.organization_id, key))
    row = stage.ours.connection.execute("select last_used_at from api_key where id = %s", (key,)).fetchone()
    return row == {"last_used_at": None}


def _watched(stage: Stage) -> bool:
    """Whoever waits for a job of theirs in our name sees nothing of it."""
    job = ids.decode("job", stage.theirs.job()["job_id"])
    ours = stage.ours.organization.organization_id
    marks = stage.calling.execute("select * from job_marks(%s, %s)", ([ours], [job])).fetchall()
    views = stage.calling.execute("select job from job_views(%s, %s)", ([ours], [job])).fetchall()
    return (marks, views) == ([], [{"job": None}])


def _submits(stage: Stage) -> bool:
    """Neither a source nor a project of theirs takes a job of ours, and theirs count for nothing in ours."""
    execute = stage.ours.connection.execute
    ours, theirs = stage.ours.organization, stage.theirs.organization
    execute(
        "update job set status = 'failed' where organization_id = %s and status = 'queued'", (ours.organization_id,)
    )
    # One that runs, and two that wait: one before ours by its age, the other by its priority.
    named = stage.theirs.source()
    source = {name: ids.decode(prefix, named[name]) for name, prefix in _SOURCE_IDS}
    for change in ("status = 'running'", "priority = 0", "priority = 5"):
        job = making.submit(stage.theirs.connection, theirs, *source.values(), types=["s3"])["job"]["id"]
        execute(f"update job set {change} where id = %s", (job,))  # type: ignore[call-overload]
    named = stage.ours.source()
    own = {name: ids.decode(prefix, named[name]) for name, prefix in _SOURCE_IDS}
    their_project, their_source = source.values()
    draft = {"data_source_id": None, "draft": {"type": "s3", "config": {}}}
    requests = [
        making.submit_request(ours, their_project, their_source, types=["s3"]),
        making.submit_request(ours, their_project, their_source, types=["s3"], **draft),
        making.submit_request(ours, *own.values(), types=["s3"], live_job_limit=1),
    ]
    answers = [making.submit_all(stage.calling, ours, [request])[0] for request in requests]
    execute(
        "update job set status = 'failed' where organization_id = %s and status = 'running'", (theirs.organization_id,)
    )
    job = answers[2].get("job")
    return [answer["outcome"] for answer in answers] == ["not_found", "not_found", "created"] and (
        job["queue_position"],
        job["waiting"]["running"],
    ) == (1, 0)


def _signs_in(stage: Stage) -> bool:
    """A person of theirs, known by subject or address, is nobody in ours; and stays as he is in theirs."""
    address = f"{calling.fresh()}@example.com"
    stage.theirs.post("members", json={"email": address, "role": "admin"})
    sign_in = "select member_sign_in(%s, 'issuer', %s, %s, 'n', null, null, null) as who"
    subject = calling.fresh()
    ours, theirs = (world.organization.organization_id for world in (stage.ours, stage.theirs))
    execute = stage.calling.execute
    by_address = execute(sign_in, (ours, subject, address)).fetchone()
    known = execute(sign_in, (theirs, subject, address)).fetchone()
    by_subject = execute(sign_in, (ours, subject, None)).fetchone()
    assert known is not None
    assert known["who"]["state"] == "usable"
    return (by_address, by_subject) == ({"who": {"state": "unknown"}}, {"who": {"state": "unknown"}})


def _signs_in_with_role(stage: Stage) -> bool:
    """The role that the provider gives counts in one organization."""
    address, subject = f"{calling.fresh()}@example.com", calling.fresh()
    sign_in = "select member_sign_in(%s, 'issuer', %s, %s, 'n', %s, null, null)"
    ours, theirs = (world.organization.organization_id for world in (stage.ours, stage.theirs))
    execute = stage.calling.execute
    for organization, role in ((theirs, "viewer"), (ours, "viewer"), (ours, "admin")):
        execute(sign_in, (organization, subject, address, role))
    rows = stage.ours.connection.execute(
        "select organization_id, role from member where subject = %s", (subject,)
    ).fetchall()
    return {row["organization_id"]: row["role"] for row in rows} == {theirs: "viewer", ours: "admin"}


def _in_a_batch(stage: Stage) -> bool:
    """No job is started on a source of theirs."""
    answer = SAMPLES["POST /jobs:batch"](stage.theirs).by(stage.ours.admin)
    return [entry["status"] for entry in answer.json().get("data", [])] == [404]


def _cancelled_together(stage: Stage) -> bool:
    """None of their jobs is cancelled by a filter of ours."""
    theirs = stage.theirs.job()["job_id"]
    answer = stage.ours.admin.post("/jobs:cancel", json={"kind": ["connection_test"], "ids": [theirs]})
    status = stage.theirs.admin.get(f"jobs/{theirs}").json()["status"]
    return (answer.json().get("data"), status) == ([], "queued")


def _pruned(stage: Stage) -> bool:
    """That a job of theirs was there is not told, nor how it ended."""
    job_id = stage.theirs.job()["job_id"]
    making.end_long_ago(stage.theirs.connection, ids.decode("job", job_id))
    pruning.prune(stage.theirs.connection, retention_days=90)
    assert stage.theirs.admin.get(f"jobs/{job_id}").status_code == 410
    return stage.ours.admin.get(f"jobs/{job_id}").status_code == 404


def _last_admin(stage: Stage) -> bool:
    """Another organization's admins do not make ours one of many."""
    me = stage.ours.admin.get("me").json()["member"]["id"]
    refused = [
        stage.ours.admin.patch(f"members/{me}", json={"role": "viewer"}).status_code,
        stage.ours.admin.delete(f"members/{me}").status_code,
    ]
    stage.ours.connection.execute(
        "update member set role = 'admin', removed_at = null where id = %s", (ids.decode("user", me),)
    )
    stage.ours.connection.execute(
        "update api_key set revoked_at = null where id = %s", (api_keys.parse(stage.ours.organization.api_key).id,)
    )
    # The API remembers for seconds what it saw of the key, and may have looked in between.
    while stage.ours.admin.get("me").json()["role"] != "admin":
        time.sleep(0.1)
    return refused == [409, 409]


def _quota(stage: Stage) -> bool:
    """Another organization's sources do not fill ours."""
    count = "select count(*) as n from data_source where organization_id = %s and deleted_at is null"
    row = stage.ours.connection.execute(count, (stage.ours.organization.organization_id,)).fetchone()
    assert row is not None
    limit = "update organization set data_source_limit = %s where id = %s"
    project = stage.ours.project()
    stage.theirs.source()
    stage.ours.connection.execute(limit, (row["n"] + 1, stage.ours.organization.organization_id))
    body = {"name": calling.fresh(), "type": "s3", "config": calling.S3}
    answer = stage.ours.admin.post("projects/{project_id}/data-sources".format(**project), json=body)
    stage.ours.connection.execute(limit, (None, stage.ours.organization.organization_id))
    return answer.status_code == 201


def _live_jobs(stage: Stage) -> bool:
    """Another organization's jobs, waiting or running, do not fill ours."""
    ours, theirs = stage.ours.organization.organization_id, stage.theirs.organization.organization_id
    execute = stage.ours.connection.execute
    execute("update job set status = 'failed' where organization_id = %s and status in ('queued', 'running')", (ours,))
    for status in ("queued", "running"):
        job = ids.decode("job", stage.theirs.job()["job_id"])
        execute("update job set status = %s where id = %s", (status, job))
    limit = "update organization set live_job_limit = %s where id = %s"
    execute(limit, (1, ours))
    source = stage.ours.source()
    answer = stage.ours.admin.post("projects/{project_id}/data-sources/{data_source_id}/test".format(**source))
    execute(limit, (None, ours))
    execute(
        "update job set status = 'failed' where organization_id = %s and status in ('queued', 'running')", (theirs,)
    )
    return answer.status_code == 202


def _webhooks_quota(stage: Stage) -> bool:
    """Another organization's webhooks do not fill ours."""
    ours = stage.ours.organization.organization_id
    stage.ours.webhook()
    stage.theirs.webhook()
    row = stage.ours.connection.execute(
        "select count(*) as n from webhook where organization_id = %s and deleted_at is null", (ours,)
    ).fetchone()
    assert row is not None
    limit = "update organization set webhook_limit = %s where id = %s"
    stage.ours.connection.execute(limit, (row["n"] + 1, ours))
    answer = stage.ours.admin.post("webhooks", json={"url": "https://hooks.example.com/"})
    stage.ours.connection.execute(limit, (100_000, ours))
    return answer.status_code == 201


def _attempts(stage: Stage) -> bool:
    """A row that says it is theirs is not shown, whatever it hangs on."""
    ours = stage.ours.delivery()
    stage.ours.connection.execute(
        "insert into webhook_attempt (delivery_id, attempt, organization_id) values (%s, 1, %s)",
        (ids.decode("dlv", ours["delivery_id"]), stage.theirs.organization.organization_id),
    )
    shown = stage.ours.admin.get("webhooks/{webhook_id}/deliveries/{delivery_id}".format(**ours)).json()
    return bool(shown["attempts"] == [])


def _told(stage: Stage) -> bool:
    """A webhook of ours hears nothing of their jobs."""
    ours = stage.ours.webhook()
    theirs = stage.theirs.job()
    stage.theirs.admin.post("jobs/{job_id}/cancel".format(**theirs))
    answer = stage.ours.admin.get("webhooks/{webhook_id}/deliveries".format(**ours))
    return bool(answer.json()["data"] == [])


def _removed_members_keys(stage: Stage) -> bool:
    """Only the keys of the member go."""
    member = stage.ours.member()
    alive = "select count(*) as n from api_key where revoked_at is null and organization_id = %s"
    theirs = (stage.theirs.organization.organization_id,)
    before = stage.ours.connection.execute(alive, theirs).fetchone()
    stage.ours.admin.delete("members/{member_id}".format(**member))
    return stage.ours.connection.execute(alive, theirs).fetchone() == before


_PROJECT = "/projects/{project_id}"
_SOURCE = _PROJECT + "/data-sources/{data_source_id}"
_LISTS = (
    "/projects", "/members", "/api-keys", "/data-sources", "/jobs", "/webhooks", "/audit-log", "/organization", "/me",
)  # fmt: skip

PROBES: dict[str, Probe] = {
    **{f"{each}: theirs": _by_path(each) for each in SAMPLES if "_id}" in each},
    **{
        f"{each}: their {name}": _by_one_id(each, name)
        for each in SAMPLES
        for name in re.findall(r"\{(\w+_id)\}", each)
    },
    **{f"{each}: bad": _by_bad_request(each) for each in SAMPLES if "_id}" in each},
    **{f"GET {path}: list": _in_a_list(f"GET {path}") for path in _LISTS if path not in ("/organization", "/me")},
    f"GET {_PROJECT}/data-sources: list": _in_a_list(f"GET {_PROJECT}/data-sources"),
    **{
        f"{operation}: {name}": _in_a_body(operation, name)
        for operation, name in (
            (f"POST {_PROJECT}/data-sources", "owner_id"),
            (f"PATCH {_SOURCE}", "owner_id"),
            ("POST /api-keys", "member_id"),
            ("POST /api-keys", "project_ids"),
            ("POST /webhooks", "project_ids"),
            ("PATCH /webhooks/{webhook_id}", "project_ids"),
        )
    },
    **{
        f"GET {path} by {parameter}": _in_a_query(path, parameter)
        for path, parameter in (
            ("jobs", "project_id"), ("jobs", "data_source_id"), ("jobs", "ids"), ("audit-log", "actor"),
            ("audit-log", "subject"),
        )
    },
    f"POST {_SOURCE}/uploads: head": _upload_head("POST", f"{_SOURCE}/uploads"),
    f"PUT {_SOURCE}/uploads/{{name}}: head": _upload_head("PUT", f"{_SOURCE}/uploads/{{name}}"),
    "the sealing key": _sealing_key,
    "a batch": _in_a_batch,
    "jobs by a filter": _cancelled_together,
    "a pruned job": _pruned,
    "the last admin": _last_admin,
    "a quota": _quota,
    "a quota of jobs": _live_jobs,
    "a removed member's keys": _removed_members_keys,
    "a quota of webhooks": _webhooks_quota,
    "attempts of a delivery": _attempts,
}  # fmt: skip


_SOURCE_IDS: Final[tuple[tuple[str, ids.Prefix], ...]] = (("project_id", "proj"), ("data_source_id", "dsrc"))

# What the SQL functions promise, beside the probes of jobs.
CALLS: dict[str, Probe] = {
    "api_key_used": _key_use,
    "job_marks": _watched,
    "job_views": _watched,
    "jobs_submit": _submits,
    "event_to_webhooks": _told,
    "member_sign_in": lambda stage: _signs_in(stage) and _signs_in_with_role(stage),
}


def _state(stage: Stage, call: Call) -> Any:
    """What a foreign request could have changed of the objects in its path."""
    tables = {
        "project_id": ("project", "proj"), "data_source_id": ("data_source", "dsrc"), "job_id": ("job", "job"),
        "key_id": ("api_key", "key"), "member_id": ("member", "user"), "webhook_id": ("webhook", "hook"),
        "delivery_id": ("webhook_delivery", "dlv"),
    }  # fmt: skip
    found = []
    for name, (table, prefix) in tables.items():
        if name in call.named:
            row = stage.ours.connection.execute(
                f"select to_jsonb(t) - 'rung_at' as row from {table} t where id = %s",
                (ids.decode(prefix, call.named[name]),),  # type: ignore[arg-type]
            ).fetchone()
            found.append(row)
    return found


@contextmanager
def staged(database: str, url: str, pepper_file: Path, master_key_file: Path, uploads: Path) -> Iterator[Stage]:
    """An API that comes to the database as `url` says, and two organizations in it."""
    pepper = api_keys.read_pepper(pepper_file)
    settings = {
        "HEADWATER_DATABASE_URL": url,
        "HEADWATER_PEPPER_FILE": str(pepper_file),
        "HEADWATER_UPLOADS_DIR": str(uploads),
    }
    with (
        db.connect(database, application="tests") as connection,
        db.connect(url, application="tests") as calling_as,
        serving.api(**settings) as api,
    ):
        worlds = []
        for name in ("ours", "theirs"):
            with connection.transaction():
                made = organizations.create(
                    connection,
                    name=name,
                    email=f"ada@{name}.example.com",
                    pepper=pepper,
                    provider=KeyFile(master_key_file),
                )
            worlds.append(World(api.client(made.api_key), made, connection))
        ours, theirs = worlds
        marks = [*theirs.item().values(), *theirs.job().values(), *theirs.key().values(), *theirs.member().values()]
        marks += theirs.delivery().values()
        marks += ["ada@theirs.example.com", ids.encode("org", theirs.organization.organization_id)]
        yield Stage(ours, theirs, marks, calling_as)
        ours.admin.close()
        theirs.admin.close()


def _sites_of(stage: Stage, watch: Watch) -> dict[Site, list[str]]:
    """Which probes send which comparisons; each probe holds as things are."""
    found: dict[Site, list[str]] = {}
    for name, probe in PROBES.items():
        watch.seen.clear()
        assert probe(stage), name
        for site in watch.seen:
            found.setdefault(site, []).append(name)
    return found


def _sites_in_functions(connection: Connection) -> list[Site]:
    """Every comparison in an SQL function."""
    rows = connection.execute(
        "select proname, pg_get_functiondef(oid) as text from pg_proc where pronamespace = 'public'::regnamespace"
    ).fetchall()
    return [
        Site(row["text"], index, row["proname"])
        for row in rows
        for index, _ in enumerate(_FILTER_IN_FUNCTION.finditer(row["text"]))
    ]


def _missed(stage: Stage, names: list[str], *, all_of_them: bool) -> list[str]:
    """The probes that did not hold, or the first one."""
    missed = []
    for name in names:
        if not (PROBES | CALLS)[name](stage):
            missed.append(name)
            if not all_of_them:
                break
    return missed


@contextmanager
def _replaced(connection: Connection, site: Site) -> Iterator[None]:
    """The function without the comparison."""
    connection.execute(site.stripped(_FILTER_IN_FUNCTION))
    try:
        yield
    finally:
        connection.execute(site.text)


def _probes_of(site: Site) -> list[str]:
    """Those that call the function."""
    if site.function in CALLS:
        return [site.function]
    return [name for name in PROBES if "job" in name or re.search(r"/(test|files|tables|sync):", name)]


def _unexplained(sites: list[Site]) -> list[str]:
    """Those for which no reason is given; and reasons that are no longer needed."""
    texts = [str(site) for site in sites]
    unexplained = [text for text in texts if not any(part in text for part in REDUNDANT)]
    return unexplained + [f"stale: {part}" for part in REDUNDANT if not any(part in text for text in texts)]


@pytest.mark.timeout(600)
def test_a_filter_that_is_taken_out_is_noticed(
    database: str, pepper_file: Path, master_key_file: Path, tmp_path: Path
) -> None:
    """Without policies each comparison is what stands between two tenants, and some probe says so."""
    with watching() as watch, staged(database, database, pepper_file, master_key_file, tmp_path) as stage:
        unnoticed = []
        for site, names in _sites_of(stage, watch).items():
            watch.out = site
            if not _missed(stage, names, all_of_them=False):
                unnoticed.append(site)
        watch.out = None
        for site in _sites_in_functions(stage.ours.connection):
            with _replaced(stage.ours.connection, site):
                if not _missed(stage, _probes_of(site), all_of_them=False):
                    unnoticed.append(site)
    assert _unexplained(unnoticed) == []


@pytest.mark.timeout(600)
def test_row_level_security_holds_whatever_filter_is_taken_out(
    database: str, pepper_file: Path, master_key_file: Path, tmp_path: Path
) -> None:
    """With the API's own login every probe holds all the same."""
    url = making.as_service(database, "api")
    with watching() as watch, staged(database, url, pepper_file, master_key_file, tmp_path) as stage:
        missed = {}
        for site, names in _sites_of(stage, watch).items():
            watch.out = site
            if found := _missed(stage, names, all_of_them=True):
                missed[str(site)] = found
        watch.out = None
        for site in _sites_in_functions(stage.ours.connection):
            with _replaced(stage.ours.connection, site):
                if found := _missed(stage, _probes_of(site), all_of_them=True):
                    missed[str(site)] = found
    assert missed == {}
