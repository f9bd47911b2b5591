"""Routes that are found by one look are the routes that would have been found by many."""

import httpx2
import pytest
from starlette.routing import Match

from headwater import ids
from headwater_api.guard import GuardedRoute
from headwater_api.main import PREFIX, create_app

DIRECT = {
    ("GET", "/jobs/{job_id}"),
    ("POST", "/projects/{project_id}/data-sources/{data_source_id}/test"),
    ("POST", "/projects/{project_id}/data-sources/{data_source_id}/files"),
    ("POST", "/projects/{project_id}/data-sources/{data_source_id}/sync"),
}


def scope(method: str, path: str, query: bytes = b"") -> dict[str, object]:
    """What a server gives an application."""
    return {"type": "http", "method": method, "path": PREFIX + path, "query_string": query, "root_path": ""}


def test_the_first_look_finds_the_route_itself() -> None:
    """With the parameters of its path."""
    first, *_ = create_app().routes
    for method, path in DIRECT:
        match, found = first.matches(scope(method, path.replace("{", "").replace("}", "")))
        assert match == Match.FULL
        assert isinstance(found["route"], GuardedRoute)
        assert (found["route"].path, found["endpoint"]) == (path, found["route"].endpoint)
        assert found["path_params"] == {part[1:-1]: part[1:-1] for part in path.split("/") if part.startswith("{")}


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/jobs/x", b"wait=1"),
        ("DELETE", "/jobs/x", b""),
        ("GET", "/jobs/x/", b""),
        ("GET", "/jobs/x/events", b""),
        ("POST", "/projects/x/data-sources/test", b""),
        ("POST", "/projects/x/data-sources/x/tables", b""),
    ],
)
def test_what_is_not_theirs_goes_on(method: str, path: str, query: bytes) -> None:
    """To the routes that are tried one after another."""
    first, *_ = create_app().routes
    assert first.matches(scope(method, path, query)) == (Match.NONE, {})


def test_both_ways_lead_to_the_same_answer(client: httpx2.Client) -> None:
    """The same problem for a job that is not there, and 405 for a method that is not."""
    unknown = f"jobs/{ids.encode('job', ids.new())}"
    direct, tried = client.get(unknown), client.get(unknown, params={"wait": "0"})
    assert direct.status_code == tried.status_code == 404
    assert direct.json() | {"request_id": ""} == tried.json() | {"request_id": ""}
    assert client.put(unknown).status_code == 405
