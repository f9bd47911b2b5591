"""Projects over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from headwater import ids


def _names(client: httpx2.Client, **parameters: Any) -> list[str]:
    names: list[str] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = client.get("projects", params={**parameters, **more}).json()
        names += [project["name"] for project in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            return names


def test_a_created_project_is_read_back_with_its_etag(client: httpx2.Client) -> None:
    """201 with Location and ETag; the same object is found there."""
    answer = client.post("projects", json={"name": f"  read back {ids.new()} ", "description": "d"})
    assert answer.status_code == 201
    found = client.get(str(answer.url.join(answer.headers["Location"])))
    assert found.json() == answer.json()
    assert found.headers["ETag"] == answer.headers["ETag"] == '"r1"'
    assert found.json()["name"].startswith("read back")
    assert found.json()["created_by"]["email"] == "ada@example.com"
    assert found.json()["created_at"].endswith("Z")


def test_two_projects_cannot_share_a_name(client: httpx2.Client, project: dict[str, Any]) -> None:
    """The second one is 409 `name_taken`, and a deleted one gives its name back."""
    assert client.post("projects", json={"name": project["name"]}).json()["code"] == "name_taken"
    assert client.delete(f"projects/{project['id']}", headers={"If-Match": "*"}).status_code == 204
    assert client.post("projects", json={"name": project["name"]}).status_code == 201


def test_fields_that_the_server_sets_are_refused(client: httpx2.Client) -> None:
    """Mass assignment is a 400 that names the field and does not repeat its value."""
    answer = client.post("projects", json={"name": "x", "organization_id": "org_secretvalue"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/organization_id"
    assert "secretvalue" not in answer.text


def test_a_change_needs_the_current_etag(client: httpx2.Client, project: dict[str, Any]) -> None:
    """Missing is 428, stale is 412, and both come before a bad body."""
    path = f"projects/{project['id']}"
    assert client.patch(path, json={"name": 1}).status_code == 428
    assert client.patch(path, json={"name": 1}, headers={"If-Match": '"r9"'}).status_code == 412
    assert client.patch(path, json={"name": 1}, headers={"If-Match": '"r1"'}).status_code == 400
    assert client.patch(path, json={"name": "good"}).status_code == 428
    assert client.patch(path, json={"name": "good"}, headers={"If-Match": '"r9"'}).status_code == 412
    changed = client.patch(path, json={"description": "new"}, headers={"If-Match": '"r1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"r2"')
    assert (changed.json()["name"], changed.json()["description"]) == (project["name"], "new")
    assert client.delete(path, headers={"If-Match": '"r1"'}).status_code == 412


def test_an_empty_change_changes_nothing(client: httpx2.Client, project: dict[str, Any]) -> None:
    """No body and an empty object are the same, and move no revision."""
    path = f"projects/{project['id']}"
    for body in ({"content": b""}, {"json": {}}):
        answer = client.patch(path, headers={"If-Match": '"r1"'}, **body)
        assert (answer.status_code, answer.headers["ETag"]) == (200, '"r1"')


def test_of_two_concurrent_changes_one_is_stale(client: httpx2.Client, project: dict[str, Any]) -> None:
    """Twenty writers with one ETag: one 200, nineteen 412."""

    def change(number: int) -> int:
        headers = {"If-Match": '"r1"'}
        return client.patch(
            f"projects/{project['id']}", json={"description": f"by {number}"}, headers=headers
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(change, range(20))) == [200] + [412] * 19


def test_another_organizations_project_is_not_there(other_client: httpx2.Client, project: dict[str, Any]) -> None:
    """404 for reading, changing and deleting, like an id that is malformed."""
    path = f"projects/{project['id']}"
    answers = [
        other_client.get(path),
        other_client.patch(path, json={"name": "mine"}, headers={"If-Match": "*"}),
        other_client.delete(path, headers={"If-Match": "*"}),
        other_client.get("projects/proj_nonsense"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert project["name"] not in _names(other_client)


@pytest.mark.parametrize("sort", ["name", "-name", "-updated_at,name", "created_at", "description", "name,name"])
def test_a_walk_by_cursor_meets_every_project_once(client: httpx2.Client, sort: str) -> None:
    """Whatever the sort; one that is not documented is 400."""
    if sort in ("description", "name,name"):
        assert client.get("projects", params={"sort": sort}).json()["errors"][0]["pointer"] == "sort"
        return
    mark = ids.new().hex
    expected = {f"{mark} {number}" for number in range(7)}
    for name in expected:
        client.post("projects", json={"name": name})
    names = _names(client, q=mark.upper(), sort=sort, page_size=2)
    assert sorted(names) == sorted(expected)
    if sort.endswith("name") and "," not in sort:
        assert names == sorted(expected, reverse=sort.startswith("-"))


def test_pages_by_number_count_from_zero(client: httpx2.Client) -> None:
    """`page` and `cursor` together are 400."""
    mark = ids.new().hex
    for number in range(3):
        client.post("projects", json={"name": f"{mark} {number}"})
    parameters = {"q": mark, "sort": "name", "page_size": 2}
    second = client.get("projects", params={**parameters, "page": 1}).json()
    assert ([project["name"] for project in second["data"]], second["has_more"]) == ([f"{mark} 2"], False)
    both = client.get("projects", params={**parameters, "page": 1, "cursor": "x"})
    assert both.json()["errors"][0]["code"] == "page_with_cursor"


def test_a_cursor_serves_its_own_list_alone(
    client: httpx2.Client, other_client: httpx2.Client, project: dict[str, Any]
) -> None:
    """Another sort, another filter, another organization, a changed letter: 400 `invalid_cursor`."""
    client.post("projects", json={"name": f"another {ids.new()}"})
    cursor = client.get("projects", params={"page_size": 1, "sort": "name"}).json()["next_cursor"]
    good = {"page_size": 2, "sort": "name", "cursor": cursor}
    assert client.get("projects", params=good).status_code == 200
    flipped = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    answers = [
        client.get("projects", params={**good, "sort": "-name"}),
        client.get("projects", params={**good, "q": "x"}),
        client.get("projects", params={**good, "cursor": flipped}),
        client.get("projects", params={**good, "cursor": "é"}),
        other_client.get("projects", params=good),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(400, "invalid_cursor")] * 5


def test_the_same_key_creates_once(client: httpx2.Client) -> None:
    """Twelve identical requests at once: one project, twelve equal answers."""
    name, headers = f"once {ids.new()}", {"Idempotency-Key": ids.new().hex}

    def create(_: int) -> httpx2.Response:
        return client.post("projects", json={"name": name}, headers=headers)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(create, range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 11
    assert client.post("projects", json={"name": "other"}, headers=headers).status_code == 422
