"""Who may do what: every operation of the OpenAPI document, tried by everybody who must not and everybody who may."""

import re
from typing import Any

import calling
import httpx2
import pytest
from calling import Call, World

from headwater import ids
from headwater_api.main import PREFIX, create_app

ALL = ("viewer", "operator", "admin")
RUNS = ("operator", "admin")
EDITS = ("admin",)

_PROJECT = "/projects/{project_id}"
_SOURCES = _PROJECT + "/data-sources"
_SOURCE = _SOURCES + "/{data_source_id}"

# Written down here once more, and not read from the code: whoever changes a right changes this page.
MATRIX: dict[str, tuple[str, ...]] = {
    "GET /me": ALL,
    "GET /organization": ALL,
    "PATCH /organization": EDITS,
    "GET /members": ALL,
    "POST /members": EDITS,
    "GET /members/{member_id}": ALL,
    "PATCH /members/{member_id}": EDITS,
    "DELETE /members/{member_id}": EDITS,
    "GET /api-keys": EDITS,
    "POST /api-keys": EDITS,
    "GET /api-keys/{key_id}": EDITS,
    "DELETE /api-keys/{key_id}": EDITS,
    "POST /api-keys/{key_id}/rotate": EDITS,
    "GET /audit-log": EDITS,
    "GET /data-source-types": ALL,
    "GET /data-source-types/{type}": ALL,
    "GET /projects": ALL,
    "POST /projects": EDITS,
    f"GET {_PROJECT}": ALL,
    f"PATCH {_PROJECT}": EDITS,
    f"DELETE {_PROJECT}": EDITS,
    "GET /data-sources": ALL,
    f"GET {_SOURCES}": ALL,
    f"POST {_SOURCES}": EDITS,
    f"POST {_SOURCES}/test": RUNS,
    f"GET {_SOURCE}": ALL,
    f"PATCH {_SOURCE}": EDITS,
    f"PUT {_SOURCE}": EDITS,
    f"DELETE {_SOURCE}": EDITS,
    f"GET {_SOURCE}/credentials": ALL,
    f"PUT {_SOURCE}/credentials": EDITS,
    f"DELETE {_SOURCE}/credentials": EDITS,
    f"GET {_SOURCE}/events": ALL,
    f"POST {_SOURCE}/test": RUNS,
    f"GET {_SOURCE}/files": ALL,
    f"POST {_SOURCE}/files": RUNS,
    f"GET {_SOURCE}/tables": ALL,
    f"POST {_SOURCE}/tables": RUNS,
    f"POST {_SOURCE}/sync": RUNS,
    f"GET {_SOURCE}/items": ALL,
    f"GET {_SOURCE}/items/{{item_id}}": ALL,
    f"GET {_SOURCE}/rejects": ALL,
    f"GET {_SOURCE}/uploads": ALL,
    f"POST {_SOURCE}/uploads": RUNS,
    f"GET {_SOURCE}/uploads/{{name}}": ALL,
    f"PUT {_SOURCE}/uploads/{{name}}": RUNS,
    f"DELETE {_SOURCE}/uploads/{{name}}": RUNS,
    "GET /webhooks": EDITS,
    "POST /webhooks": EDITS,
    "GET /webhooks/{webhook_id}": EDITS,
    "PATCH /webhooks/{webhook_id}": EDITS,
    "DELETE /webhooks/{webhook_id}": EDITS,
    "POST /webhooks/{webhook_id}/rotate": EDITS,
    "POST /webhooks/{webhook_id}/test": EDITS,
    "GET /webhooks/{webhook_id}/deliveries": EDITS,
    "GET /webhooks/{webhook_id}/deliveries/{delivery_id}": EDITS,
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": EDITS,
    "GET /jobs": ALL,
    "GET /jobs/{job_id}": ALL,
    "GET /jobs/{job_id}/events": ALL,
    "GET /jobs/{job_id}/attempts": ALL,
    "GET /jobs/{job_id}/rejects": ALL,
    "POST /jobs/{job_id}/cancel": RUNS,
    "POST /jobs/{job_id}/retry": RUNS,
    "POST /jobs:batch": RUNS,
    "POST /jobs:cancel": RUNS,
}
# An S3 source has no tables, which is said after all rights were looked at.
OTHER_SUCCESS = {f"POST {_SOURCE}/tables": 409, f"GET {_SOURCE}/tables": 409}
# What a key that is limited to some projects may not do, whatever its role.
OF_THE_WHOLE = re.compile(r"(POST /projects$|(PATCH /organization|\w+ /(members|api-keys|audit-log|webhooks)))")
# Not below the prefix, and without a key: they say nothing of anybody.
OPEN = {"GET /healthz", "GET /readyz"}


def document() -> set[str]:
    """The operations of the OpenAPI document, as the matrix names them."""
    return {
        f"{method.upper()} {path.removeprefix(PREFIX)}"
        for path, operations in create_app().openapi()["paths"].items()
        for method in operations
    }


def sample(world: World, operation: str) -> Call:
    """A good request for the operation, on objects of this world."""
    return calling.SAMPLES[operation](world)


def outcome(answer: httpx2.Response) -> tuple[int, Any]:
    """Status and body, without what differs from request to request."""
    if not answer.content or "json" not in answer.headers["Content-Type"]:
        return answer.status_code, None
    body = answer.json()
    return answer.status_code, {name: value for name, value in body.items() if name not in ("instance", "request_id")}


def test_the_matrix_has_every_operation_and_no_other() -> None:
    """A route that is missing here fails the run, and so does one that is gone."""
    assert document() - OPEN == MATRIX.keys()
    assert calling.SAMPLES.keys() == MATRIX.keys()


@pytest.mark.parametrize("operation", MATRIX)
def test_whoever_may_does(stage: Any, operation: str) -> None:
    """With a good request each role that has the right succeeds, and each that has it not is answered 403."""
    for role in ALL:
        answer = sample(stage.ours, operation).by(stage.clients[role])
        if role in MATRIX[operation]:
            assert answer.status_code in {200, 201, 202, 204, OTHER_SUCCESS.get(operation)}, (role, answer.text)
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (role, answer.text)


@pytest.mark.parametrize("operation", MATRIX)
def test_whoever_is_not_known_is_answered_401(stage: Any, operation: str) -> None:
    """No key, a dead key, a key of an organization that is shut out; nothing is said of what the path names."""
    call = sample(stage.ours, operation)
    expected = {
        "anonymous": "unauthenticated",
        "revoked": "api_key_revoked",
        "expired": "api_key_expired",
        "suspended": "organization_suspended",
    }
    answers = {name: call.by(stage.clients[name]) for name in expected}
    assert {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()} == {
        name: (401, code) for name, code in expected.items()
    }
    assert all(answer.headers["WWW-Authenticate"].startswith("Bearer") for answer in answers.values())


@pytest.mark.parametrize("operation", MATRIX)
def test_a_limited_key_stays_in_its_projects(stage: Any, operation: str) -> None:
    """What belongs to other projects is not there; what concerns the whole organization is not for it."""
    answer = sample(stage.ours, operation).by(stage.clients["limited"])
    if re.search(r"\{(project|job)_id\}", operation):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.text
    elif OF_THE_WHOLE.match(operation):
        assert (answer.status_code, answer.json()["code"]) == (403, "key_limited"), answer.text
    else:
        assert answer.status_code == 200, answer.text


WITH_IDS = [
    (operation, name)
    for operation in MATRIX
    for name in re.findall(r"\{(\w+)\}", operation)
    if name not in ("type", "name")
]
_PREFIXES: dict[str, ids.Prefix] = {
    "project_id": "proj", "data_source_id": "dsrc", "job_id": "job", "key_id": "key", "member_id": "user",
    "item_id": "item", "webhook_id": "hook", "delivery_id": "dlv",
}  # fmt: skip


@pytest.mark.parametrize(("operation", "name"), WITH_IDS)
def test_a_foreign_id_is_answered_like_a_random_one(stage: Any, operation: str, name: str) -> None:
    """Each id of each path by itself: 404, with the same body, whoever asks; and nothing is changed or told."""
    theirs = sample(stage.theirs, operation)
    for role in ALL:
        ours = sample(stage.ours, operation)
        foreign = ours.naming(**{name: theirs.named[name]}).by(stage.clients[role])
        random = ours.naming(**{name: ids.encode(_PREFIXES[name], ids.new())}).by(stage.clients[role])
        malformed = ours.naming(**{name: "nothing"}).by(stage.clients[role])
        assert outcome(foreign) == outcome(random) == outcome(malformed), role
        assert foreign.status_code == 404
        assert "Retry-After" not in foreign.headers
    assert theirs.by(stage.clients["other"]).status_code in {200, 201, 202, 204, OTHER_SUCCESS.get(operation)}


@pytest.mark.parametrize("operation", [each for each in MATRIX if "_id}" in each])
def test_another_organizations_admin_finds_nothing(stage: Any, operation: str) -> None:
    """All ids of a path are of one organization, and its rival's admin asks."""
    answer = sample(stage.ours, operation).by(stage.clients["other"])
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.text


@pytest.mark.parametrize("operation", [each for each in MATRIX if each.startswith("GET") and "_id}" not in each])
def test_no_list_names_anything_of_another(stage: Any, operation: str) -> None:
    """No id of theirs, their people's addresses or names stands in an answer to us."""
    marks = _marks(stage.theirs)
    answer = sample(stage.ours, operation).by(stage.clients["admin"])
    assert answer.status_code == 200
    assert [mark for mark in marks if mark in answer.text] == []
    assert any(mark in sample(stage.theirs, operation).by(stage.clients["other"]).text for mark in marks) or (
        "types" in operation
    )


def _marks(world: World) -> list[str]:
    """Ids of everything that an organization has."""
    item, job, key, member, delivery = world.item(), world.job(), world.key(), world.member(), world.delivery()
    me = world.admin.get("me").json()
    return [
        *item.values(), *job.values(), *key.values(), *member.values(), *delivery.values(), me["organization"]["id"],
        me["member"]["id"],
    ]  # fmt: skip


def _me(world: World) -> str:
    """The id of the admin's member."""
    return str(world.admin.get("me").json()["member"]["id"])


QUERIES = [
    ("jobs", "project_id", "project_id"),
    ("jobs", "data_source_id", "data_source_id"),
    ("jobs", "ids", "job_id"),
    ("data-sources", "owner", "member_id"),
    ("audit-log", "actor", "member_id"),
    ("audit-log", "subject", "data_source_id"),
]


@pytest.mark.parametrize(("path", "parameter", "name"), QUERIES)
def test_a_foreign_id_in_a_query_is_like_a_random_one(stage: Any, path: str, parameter: str, name: str) -> None:
    """Both find nothing."""
    theirs = {
        **stage.theirs.item(),
        **stage.theirs.job(),
        "member_id": stage.theirs.admin.get("me").json()["member"]["id"],
    }
    client = stage.clients["admin"]
    foreign = client.get(path, params={parameter: theirs[name]})
    random = client.get(path, params={parameter: ids.encode(_PREFIXES[name], ids.new())})
    assert outcome(foreign) == outcome(random) == (200, {"data": [], "next_cursor": None, "has_more": False})


@pytest.mark.parametrize(
    ("operation", "pointer", "name"),
    [
        (f"POST {_SOURCES}", "owner_id", "member_id"),
        (f"PATCH {_SOURCE}", "owner_id", "member_id"),
        ("POST /api-keys", "member_id", "member_id"),
        ("POST /api-keys", "project_ids", "project_id"),
        ("POST /webhooks", "project_ids", "project_id"),
        ("PATCH /webhooks/{webhook_id}", "project_ids", "project_id"),
    ],
)
def test_a_foreign_id_in_a_body_is_like_a_random_one(stage: Any, operation: str, pointer: str, name: str) -> None:
    """400, naming the field, with the same words."""
    theirs = {**stage.theirs.project(), "member_id": _me(stage.theirs)}
    answers = []
    for value in (theirs[name], ids.encode(_PREFIXES[name], ids.new())):
        call = sample(stage.ours, operation)
        call.options["json"][pointer] = [value] if pointer.endswith("s") else value
        answers.append(outcome(call.by(stage.clients["admin"])))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400


LISTS = [
    "/projects", "/members", "/api-keys", "/data-sources", "/jobs", "/audit-log", _SOURCES, f"{_SOURCE}/events",
    f"{_SOURCE}/items", f"{_SOURCE}/rejects", f"{_SOURCE}/files", f"{_SOURCE}/uploads", "/jobs/{job_id}/rejects",
    "/webhooks", "/webhooks/{webhook_id}/deliveries",
]  # fmt: skip


def test_every_list_that_takes_a_cursor_is_looked_at() -> None:
    """As the document says."""
    paths = create_app().openapi()["paths"]
    takes = {
        path.removeprefix(PREFIX)
        for path, operations in paths.items()
        if any(each["name"] == "cursor" for each in operations.get("get", {}).get("parameters", []))
    }
    assert takes - {f"{_SOURCE}/tables"} == set(LISTS)


@pytest.mark.parametrize("path", LISTS)
def test_a_foreign_cursor_is_refused_like_garbage(stage: Any, path: str) -> None:
    """Of another organization, another list, another filter, or cut: 400 `invalid_cursor`."""
    operation = f"GET {path}"
    theirs, ours = sample(stage.theirs, operation), sample(stage.ours, operation)
    cursors = ["garbage", *_cursors(stage)]
    answers = []
    for cursor in cursors:
        call = Call("GET", path, ours.named, {"params": {"cursor": cursor}})
        answers.append(outcome(call.by(stage.clients["admin"])))
    assert {(status, body["code"]) for status, body in answers} == {(400, "invalid_cursor")}
    assert all(answer == answers[0] for answer in answers)
    assert theirs.by(stage.clients["other"]).status_code == 200


def _cursors(stage: Any) -> list[str]:
    """Good ones of theirs, and one of ours for a list and filter that is no other test's."""
    for world in (stage.theirs, stage.ours):
        for _ in range(3):
            world.source()
    found = []
    for client, path, query in (
        (stage.clients["other"], "projects", {}),
        (stage.clients["other"], "data-sources", {}),
        (stage.clients["other"], "jobs", {}),
        (stage.clients["admin"], "data-sources", {"sort": "name", "env": "production"}),
    ):
        stage.theirs.job()
        cursor = client.get(path, params={"page_size": 1, **query}).json()["next_cursor"]
        if cursor is not None:
            found.append(cursor)
    assert len(found) >= 3
    return found


def test_an_idempotency_key_of_another_organization_is_free(stage: Any) -> None:
    """The same key with the same request acts for each, and shows neither the other's answer."""
    headers, name = {"Idempotency-Key": ids.new().hex}, calling.fresh()
    theirs = stage.clients["other"].post("projects", json={"name": name}, headers=headers)
    ours = stage.clients["admin"].post("projects", json={"name": name}, headers=headers)
    assert (theirs.status_code, ours.status_code) == (201, 201)
    assert theirs.json()["id"] != ours.json()["id"]
    assert "Idempotency-Replayed" not in ours.headers


@pytest.mark.parametrize(
    "operation", [each for each in MATRIX if each in (f"PATCH {_PROJECT}", f"DELETE {_SOURCE}", f"PUT {_SOURCE}")]
)
def test_the_right_etag_does_not_open_a_foreign_object(stage: Any, operation: str) -> None:
    """404 comes before 412: whoever knows the revision learns nothing."""
    theirs = sample(stage.theirs, operation)
    read = Call("GET", theirs.path, theirs.named).by(stage.clients["other"])
    for etag in (read.headers["ETag"], '"r999"'):
        call = Call(theirs.method, theirs.path, theirs.named, theirs.options | {"headers": {"If-Match": etag}})
        assert call.by(stage.clients["admin"]).status_code == 404


# What the server sets. None of it is taken from a body.
SERVER_SET = {
    "access_revision": 7,
    "created_at": "2020-01-01T00:00:00Z",
    "created_by": None,
    "data_source_limit": 7,
    "deleted_at": None,
    "error_count": 7,
    "id": "proj_00000000000000000000000000",
    "issuer": "x",
    "item_count": 7,
    "key": "hw_x",
    "last_sync_at": None,
    "last_test": None,
    "last_used_at": None,
    "organization_id": "org_00000000000000000000000000",
    "project_id": "proj_00000000000000000000000000",
    "removed_at": None,
    "revision": 7,
    "revoked_at": None,
    "secret_hash": "00",
    "status": "ready",
    "status_reason": None,
    "subject": "x",
    "suspended_at": None,
    "updated_at": "2020-01-01T00:00:00Z",
    "updated_by": None,
    "version": 7,
}


# Fields of these names that ask for something here, and set nothing.
FILTERS = {"POST /jobs:cancel": {"project_id"}}


def _bodies() -> list[str]:
    """Operations that take JSON."""
    return [
        f"{method.upper()} {path.removeprefix(PREFIX)}"
        for path, operations in create_app().openapi()["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


@pytest.mark.parametrize("operation", _bodies())
def test_what_the_server_sets_is_not_taken_from_a_body(stage: Any, operation: str) -> None:
    """Each such field is refused by its name, and nothing is done."""
    call = sample(stage.ours, operation)
    body = {**(call.options.get("json") or {}), **SERVER_SET}
    answer = Call(call.method, call.path, call.named, call.options | {"json": body}).by(stage.clients["admin"])
    refused = {error["pointer"].removeprefix("/") for error in answer.json()["errors"]}
    assert answer.status_code == 400
    assert SERVER_SET.keys() - refused == FILTERS.get(operation, set())
