"""Data sources over HTTP."""

from typing import Any

import httpx2
import pytest

from headwater import db, ids

CONFIG = {"bucket": "my-bucket", "region": "eu-central-1"}
CREDENTIALS = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "correct horse"}
ANY = {"If-Match": "*"}


def body(**more: Any) -> dict[str, Any]:
    """A good body."""
    return {"name": "Orders", "type": "s3", "config": CONFIG, **more}


def _set_fields(source: dict[str, Any]) -> list[str]:
    return sorted(name for name, field in source["credentials"].items() if field["set"])


def test_a_registered_source_has_every_documented_default(client: httpx2.Client, sources: str) -> None:
    """201 with the shape of the contract, readable at its Location."""
    answer = client.post(sources, json=body())
    assert answer.status_code == 201, answer.text
    found = client.get(str(answer.url.join(answer.headers["Location"])))
    assert found.json() == answer.json()
    assert found.headers["ETag"] == answer.headers["ETag"] == '"r1"'
    source = answer.json()
    assert source["config"] == {
        "type": "s3",
        **CONFIG,
        "prefix": "",
        "endpoint_url": None,
        "use_iam_role": False,
        "role_arn": None,
        "external_id": None,
    }
    expected = {
        "env": "production",
        "validation": {"mode": "lenient"},
        "reading": {},
        "tags": [],
        "description": "",
        "owner_id": None,
        "is_active": True,
        "status": "untested",
        "status_reason": None,
        "version": 1,
        "item_count": 0,
        "error_count": 0,
        "last_sync_at": None,
        "last_test": None,
    }
    assert {name: source[name] for name in expected} == expected
    assert _set_fields(source) == []
    assert source["created_by"]["email"] == "ada@example.com"


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"type": "nonsense"}, "/type", "unknown_type"),
        ({"config": {"bucket": "my-bucket"}}, "/config/region", "missing"),
        ({"config": {**CONFIG, "hidden_value": 1}}, "/config/hidden_value", "extra_forbidden"),
        ({"config": {**CONFIG, "type": "hidden_value"}}, "/config/type", "type_mismatch"),
        ({"config": {**CONFIG, "endpoint_url": "ftp://hidden_value"}}, "/config/endpoint_url", "value_error"),
        ({"credentials": {"password": "hidden_value"}}, "/credentials/password", "extra_forbidden"),
        ({"credentials": {"access_key_id": "********"}}, "/credentials/access_key_id", "masked_value"),
        ({"credentials": {"access_key_id": 5}}, "/credentials/access_key_id", "string_type"),
        ({"validation": {"mode": "hidden_value"}}, "/validation/mode", "literal_error"),
        ({"validation": {"max_errors": "101%"}}, "/validation/max_errors", "value_error"),
        ({"validation": {"max_errors": -1}}, "/validation/max_errors", "value_error"),
        ({"validation": {"max_errors": True}}, "/validation/max_errors", "value_error"),
        ({"validation": {"schema": {"type": "objct"}}}, "/validation/schema/type", "invalid_schema"),
        ({"validation": {"schema": []}}, "/validation/schema", "invalid_schema"),
        ({"validation": {"schema": {"minimum": 10**400}}}, "/validation/schema", "invalid_schema"),
        ({"validation": {"schema": {"$ref": "http://127.0.0.1/x"}}}, "/validation/schema", "unresolvable_reference"),
        ({"reading": {"on_missing": "hidden_value"}}, "/reading/on_missing", "literal_error"),
        ({"reading": {"format": "hidden_value"}}, "/reading/format", "string_pattern_mismatch"),
        ({"reading": {"format": "zip.gz"}}, "/reading/format", "string_pattern_mismatch"),
        ({"reading": {"csv": {"encoding": "hidden_value"}}}, "/reading/csv/encoding", "value_error"),
        ({"reading": {"csv": {"encoding": "zlib"}}}, "/reading/csv/encoding", "value_error"),
        ({"name": "  "}, "/name", "string_too_short"),
        ({"env": "no blanks"}, "/env", "string_pattern_mismatch"),
        ({"owner_id": "user_hidden_value"}, "/owner_id", "value_error"),
        ({"owner_id": "user_00000000000000000000000000"}, "/owner_id", "unknown_member"),
        ({"item_count": 7}, "/item_count", "extra_forbidden"),
        ({"organization_id": "x"}, "/organization_id", "extra_forbidden"),
    ],
)
def test_a_refused_field_is_named_and_never_echoed(
    client: httpx2.Client, sources: str, change: dict[str, Any], pointer: str, code: str
) -> None:
    """400 with pointer and code."""
    answer = client.post(sources, json=body() | change)
    assert answer.status_code == 400, answer.text
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]
    if "hidden_value" not in pointer:
        assert "hidden_value" not in answer.text


def test_names_are_unique_per_project_and_env(client: httpx2.Client, sources: str) -> None:
    """409 `name_taken` in the same env, free in another."""
    assert client.post(sources, json=body()).status_code == 201
    taken = client.post(sources, json=body())
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    staging = client.post(sources, json=body(env="staging"))
    assert staging.status_code == 201
    moved = client.patch(f"{sources}/{staging.json()['id']}", json={"env": None}, headers=ANY)
    assert (moved.status_code, moved.json()["code"]) == (409, "name_taken")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_only_what_is_sent_changes(client: httpx2.Client, sources: str, source: dict[str, Any], method: str) -> None:
    """PUT and PATCH are both merge patches: a tag changes, version, config and credentials stay."""
    answer = client.request(method, f"{sources}/{source['id']}", json={"tags": ["a", "b", "a"]}, headers=ANY)
    assert answer.status_code == 200, answer.text
    assert answer.headers["ETag"] == '"r2"'
    changing = {"tags", "updated_at"}
    unchanged = {name: value for name, value in source.items() if name not in changing}
    assert {name: value for name, value in answer.json().items() if name not in changing} == unchanged
    assert answer.json()["tags"] == ["a", "b"]


def test_null_sets_back_to_the_default(client: httpx2.Client, sources: str, source: dict[str, Any]) -> None:
    """Where there is a default; a member that is required, or a name, cannot be null."""
    path = f"{sources}/{source['id']}"
    full = {
        "description": "d",
        "tags": ["t"],
        "is_active": False,
        "config": {"prefix": "p/"},
        "reading": {"format": "csv"},
    }
    assert client.patch(path, json=full, headers=ANY).status_code == 200
    nulls = {"description": None, "tags": None, "is_active": None, "config": {"prefix": None}, "reading": None}
    reset = client.patch(path, json=nulls, headers=ANY).json()
    assert (reset["description"], reset["tags"], reset["is_active"]) == ("", [], True)
    assert (reset["config"]["prefix"], reset["reading"]) == ("", {})
    for change, pointer in ({"name": None}, "/name"), ({"config": {"bucket": None}}, "/config/bucket"):
        answer = client.patch(path, json=change, headers=ANY)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)


@pytest.mark.parametrize(
    "named", ["csv", "tsv", "ndjson", "jsonl.zst", "csv.zstd", "json.bz2", "csv.zip", "zip", "plain"]
)
def test_a_format_may_be_named_with_its_compression(
    client: httpx2.Client, sources: str, source: dict[str, Any], named: str
) -> None:
    """By the names that extensions have."""
    answer = client.patch(f"{sources}/{source['id']}", json={"reading": {"format": named}}, headers=ANY)
    assert (answer.status_code, answer.json()["reading"]) == (200, {"format": named})


def test_config_and_reading_merge_and_a_schema_is_replaced(
    client: httpx2.Client, sources: str, source: dict[str, Any]
) -> None:
    """A new version each; a null inside the schema is a value."""
    path = f"{sources}/{source['id']}"
    first = {"reading": {"csv": {"delimiter": ";"}}, "validation": {"schema": {"properties": {"a": {"const": None}}}}}
    assert client.patch(path, json=first, headers=ANY).json()["validation"]["schema"] == first["validation"]["schema"]
    second = {"reading": {"csv": {"header": False}}, "validation": {"schema": {"required": ["b"]}, "max_errors": "5%"}}
    changed = client.patch(path, json=second, headers=ANY).json()
    assert changed["reading"] == {"csv": {"delimiter": ";", "header": False}}
    assert changed["validation"] == {"mode": "lenient", "schema": {"required": ["b"]}, "max_errors": "5%"}
    assert changed["version"] == 3
    assert client.patch(path, json=second, headers=ANY).headers["ETag"] == '"r3"'


def test_versions_are_kept(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """The former config stands as it was."""
    client.patch(f"{sources}/{source['id']}", json={"config": {"prefix": "new/"}}, headers=ANY)
    rows = connection.execute(
        "select version, config ->> 'prefix' as prefix from data_source_version where data_source_id = %s"
        " order by version",
        (ids.decode("dsrc", source["id"]),),
    ).fetchall()
    assert rows == [{"version": 1, "prefix": ""}, {"version": 2, "prefix": "new/"}]


def test_a_change_that_does_not_move_the_source_keeps_its_credentials(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """A prefix is no target."""
    changed = client.patch(f"{sources}/{source['id']}", json={"config": {"prefix": "new/"}}, headers=ANY).json()
    assert changed["credentials"] == source["credentials"]
    assert _access_revision(connection, source) == 1


def test_moving_a_source_clears_the_credentials_that_are_not_sent_again(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """Another bucket: of two fields the one that came along is left, and every verdict is stale."""
    change = {"config": {"bucket": "elsewhere"}, "credentials": {"access_key_id": "AKIANEW"}}
    changed = client.patch(f"{sources}/{source['id']}", json=change, headers=ANY).json()
    assert _set_fields(changed) == ["access_key_id"]
    assert _access_revision(connection, source) == 2


def test_a_verdict_counts_until_the_access_changes(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """ready, then untested once a credential is replaced; the filter says the same."""
    connection.execute(
        "update data_source_totals set status = 'ready', status_access_revision = 1, last_test_success = true,"
        " last_test_job_id = %s, last_test_at = now() where data_source_id = %s",
        (ids.new(), ids.decode("dsrc", source["id"])),
    )
    path = f"{sources}/{source['id']}"
    found = client.get(path)
    assert (found.json()["status"], found.json()["last_test"]["success"]) == ("ready", True)
    assert found.headers["ETag"] == '"r1"'
    assert len(client.get(sources, params={"status": "ready"}).json()["data"]) == 1
    client.put(f"{path}/credentials", json={"access_key_id": "AKIANEW"})
    assert client.get(path).json()["status"] == "untested"
    assert client.get(sources, params={"status": "ready"}).json()["data"] == []


def test_the_type_never_changes(client: httpx2.Client, sources: str, source: dict[str, Any]) -> None:
    """It may be sent along if it is what it is."""
    path = f"{sources}/{source['id']}"
    assert client.put(path, json={"type": "s3", "config": {"type": "s3"}}, headers=ANY).status_code == 200
    for change, pointer in ({"type": "gcs"}, "/type"), ({"config": {"type": "gcs"}}, "/config/type"):
        answer = client.put(path, json=change, headers=ANY)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)


def test_the_order_of_refusals(
    client: httpx2.Client,
    other_client: httpx2.Client,
    client_with_role: Any,
    api: Any,
    sources: str,
    source: dict[str, Any],
) -> None:
    """401, 404, 403, 415, 428, 412, 400: each comes before what is also wrong with the request."""
    path, bad = f"{sources}/{source['id']}", {"json": {"config": 5}}
    text = {"content": b"x", "headers": {"Content-Type": "text/plain"}}
    with api.client(None) as nobody:
        assert nobody.patch(path, **bad).status_code == 401
    viewer = client_with_role("viewer")
    assert other_client.patch(path, **bad).status_code == 404
    assert viewer.patch(f"{sources}/dsrc_{'0' * 26}", **bad).status_code == 404
    assert viewer.patch(path, **bad).status_code == 403
    assert client.patch(path, **text).status_code == 415
    assert client.patch(path, **bad).status_code == 428
    assert client.patch(path, **bad, headers={"If-Match": '"r9"'}).status_code == 412
    assert client.patch(path, json={"config": {"region": 5}}, headers={"If-Match": '"r9"'}).status_code == 412
    assert client.patch(path, **bad, headers=ANY).status_code == 400


def test_a_deleted_source_is_gone_with_its_secrets_and_jobs(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """204, then 404; no ciphertext is left, a queued job is cancelled, the name is free, the history is kept."""
    path = f"{sources}/{source['id']}"
    job = client.post(f"{path}/test").json()
    assert client.delete(path).status_code == 428
    assert client.delete(path, headers={"If-Match": '"r1"'}).status_code == 204
    assert client.get(path).status_code == 404
    source_id = ids.decode("dsrc", source["id"])
    secrets = connection.execute("select from sealed_credential where subject_id = %s", (source_id,)).fetchall()
    status = connection.execute("select status from job where id = %s", (ids.decode("job", job["id"]),)).fetchone()
    acts = connection.execute(
        "select act from event where data_source_id = %s order by number", (source_id,)
    ).fetchall()
    assert (secrets, status) == ([], {"status": "cancelled"})
    assert [row["act"] for row in acts][-1] == "data_source.deleted"
    assert client.post(sources, json=body()).status_code == 201


def test_a_project_with_a_source_is_not_deleted(
    client: httpx2.Client, sources: str, source: dict[str, Any], project: dict[str, Any]
) -> None:
    """409 until the last one is gone."""
    path = f"projects/{project['id']}"
    refused = client.delete(path, headers=ANY)
    assert (refused.status_code, refused.json()["code"]) == (409, "project_not_empty")
    client.delete(f"{sources}/{source['id']}", headers=ANY)
    assert client.delete(path, headers=ANY).status_code == 204
    assert client.get(sources).status_code == 404


def test_filters_and_sorts_walk_every_source_once(client: httpx2.Client, sources: str) -> None:
    """Whatever the sort, NULLs included, in the project and over all projects."""
    mark = ids.new().hex
    for number in range(5):
        tags = ["even", mark] if number % 2 == 0 else [mark]
        client.post(sources, json=body(name=f"{mark} {number}", tags=tags, is_active=number != 0))
    for path in (sources, "data-sources"):
        for sort in ("name", "-last_sync_at,name", "item_count,-created_at", "env,-name"):
            parameters: dict[str, Any] = {"q": mark, "sort": sort, "page_size": 2}
            names = [source["name"] for source in _walk(client, path, parameters)]
            assert sorted(names) == [f"{mark} {number}" for number in range(5)], sort
    narrowed = {"tag": ["even", mark], "is_active": "true", "type": "s3", "env": "production", "sort": "name"}
    assert [source["name"][-1] for source in _walk(client, "data-sources", narrowed)] == ["2", "4"]
    assert client.get(sources, params={"nonsense": 1}).json()["errors"][0]["pointer"] == "nonsense"
    assert client.get(sources, params={"owner": "user_x"}).status_code == 400


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("grün", ["Grün Café", "alles GRÜN"]), ("CAFÉ", ["Grün Café"]), ("gruen", []), ("ПРИВЕТ", ["привет"]),
        ("100%_a", ["100%_A/b"]), ("100x_a", []), ("%", ["100%_A/b"]), ("A/B", ["100%_A/b"]), ("\\", ["back\\slash"]),
        ("mirror", ["привет"]), ("café\nmirro", []),
    ],
)  # fmt: skip
def test_a_search_finds_parts_of_names_and_descriptions_in_any_case(
    client: httpx2.Client, sources: str, part: str, found: list[str]
) -> None:
    """Also of letters beyond ASCII; no character stands for others, and a name does not go on in the description."""
    described = {"привет": "A MIRROR of it", "alles GRÜN": "", "100%_A/b": "", "back\\slash": "", "Grün Café": "Mirro"}
    for name, description in described.items():
        client.post(sources, json=body(name=name, description=description)).raise_for_status()
    assert sorted(source["name"] for source in _walk(client, sources, {"q": part})) == sorted(found)


def test_the_audit_log_names_fields_and_holds_no_value(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """Every write leaves an entry with who, from where, and which fields."""
    change = {"config": {"prefix": "hidden_value"}, "credentials": {"secret_access_key": "hidden_value"}}
    answer = client.patch(f"{sources}/{source['id']}", json=change, headers={**ANY, "X-Request-Id": "me-1"})
    rows = connection.execute(
        "select act, fields, request_id, address, to_jsonb(a)::text as text from audit_entry a"
        " where subject_id = %s order by number",
        (ids.decode("dsrc", source["id"]),),
    ).fetchall()
    assert answer.headers["X-Request-Id"] == "me-1"
    assert [row["act"] for row in rows] == ["data_source.create", "data_source.update"]
    assert rows[1]["fields"] == ["config.prefix", "credentials.secret_access_key"]
    assert (rows[1]["request_id"], rows[1]["address"]) == ("me-1", "127.0.0.1")
    assert not any("hidden_value" in row["text"] or "horse" in row["text"] for row in rows)


def test_a_replayed_creation_is_answered_alike_and_stores_no_secret(
    client: httpx2.Client, sources: str, connection: db.Connection
) -> None:
    """The stored answer again; another body under the key is 422, a bad one 400 before that."""
    headers = {"Idempotency-Key": ids.new().hex}
    request = body(credentials={"access_key_id": "hidden_value"})
    first, second = (client.post(sources, json=request, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["ETag"] == '"r1"'
    assert client.post(sources, json=body(name="other"), headers=headers).status_code == 422
    assert client.post(sources, json=body(config={}), headers=headers).status_code == 400
    stored = connection.execute("select to_jsonb(r)::text as text from idempotency_record r").fetchall()
    assert not any("hidden_value" in row["text"] for row in stored)


def _walk(client: httpx2.Client, path: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = client.get(path, params=parameters).json()
    found += page["data"]
    while page["next_cursor"]:
        page = client.get(path, params={**parameters, "cursor": page["next_cursor"]}).json()
        found += page["data"]
    return found


def _access_revision(connection: db.Connection, source: dict[str, Any]) -> int:
    row = connection.execute(
        "select access_revision from data_source where id = %s", (ids.decode("dsrc", source["id"]),)
    ).fetchone()
    assert row is not None
    number: int = row["access_revision"]
    return number
