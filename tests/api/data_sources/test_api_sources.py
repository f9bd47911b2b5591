"""Sources of type `api` over HTTP: what is refused when it is saved."""

from typing import Any

import httpx2
import pytest

ENDPOINT = "https://api.example.com/v1/items"


def _body(**config: Any) -> dict[str, Any]:
    return {"name": "Items", "type": "api", "config": {"endpoint": ENDPOINT, **config}}


def test_an_api_is_registered_with_its_defaults(client: httpx2.Client, sources: str) -> None:
    """The shortest config is an endpoint."""
    answer = client.post(sources, json=_body())
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"] == {
        "type": "api",
        "endpoint": ENDPOINT,
        "auth_type": "none",
        "header_name": None,
        "headers": {},
        "records_path": None,
        "record_key": None,
        "pagination": {"type": "none"},
        "incremental": None,
    }


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"headers": {"Authorization": "Bearer s3cr3t-value"}}, "/config/headers"),
        ({"headers": {"X-Api-Key": "s3cr3t-value"}}, "/config/headers"),
        ({"incremental": {"parameter": "since", "cursor_path": "at"}}, "/config"),
        ({"pagination": {"type": "page", "unknown": "s3cr3t-value"}}, "/config/pagination"),
        ({"endpoint": "https://ada:s3cr3t-value@api.example.com"}, "/config/endpoint"),
    ],
)
def test_what_cannot_be_right_is_refused_and_not_echoed(
    client: httpx2.Client, sources: str, config: dict[str, Any], pointer: str
) -> None:
    """400 that names the field; whoever put a secret into a config does not find it in a log."""
    answer = client.post(sources, json=_body(**config))
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"] if error["pointer"].startswith(pointer)]
    assert "s3cr3t-value" not in answer.text


def test_another_endpoint_drops_the_secret(client: httpx2.Client, sources: str) -> None:
    """It was sealed for the former one."""
    made = client.post(sources, json=_body(auth_type="bearer") | {"credentials": {"token": "t0k3n"}})
    assert made.json()["credentials"]["token"]["set"] is True
    moved = {"config": {"endpoint": "https://other.example.com/v1"}}
    url = f"{sources}/{made.json()['id']}"
    answer = client.patch(url, json=moved, headers={"If-Match": made.headers["ETag"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["credentials"]["token"]["set"] is False
