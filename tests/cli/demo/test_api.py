"""The demo's HTTP API."""

from collections.abc import Iterator

import httpx2
import pytest

from headwater_cli.demo import api

_ROWS = [{"id": number} for number in range(1, 8)]


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    """Of an API with seven records, with its token."""
    headers = {"Authorization": "Bearer t0ken"}
    with api.serve(0, token="t0ken", rows=_ROWS) as url, httpx2.Client(base_url=url, headers=headers) as made:
        yield made


def test_pages_hold_every_record_once(client: httpx2.Client) -> None:
    """From cursor to cursor, until there is none."""
    found, query = [], {"limit": "3"}
    while True:
        page = client.get(api.PATH, params=query).json()
        found.append([row["id"] for row in page["data"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert found == [[1, 2, 3], [4, 5, 6], [7]]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer other", "Basic t0ken", "Bearer t\u00f6ken"])
def test_another_token_is_refused(client: httpx2.Client, authorization: str) -> None:
    """401, and nothing of the data."""
    answer = client.get(api.PATH, headers={"Authorization": authorization.encode()})

    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=-1"])
def test_a_query_that_makes_no_sense_is_refused(client: httpx2.Client, query: str) -> None:
    """400."""
    assert client.get(f"{api.PATH}?{query}").status_code == 400


def test_records_get_their_number(client: httpx2.Client) -> None:
    """From 1 on: it is the key that a sync replaces by."""
    assert api.records(b'{"name": "Ada"}\n{"name": "Bob"}\n') == [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]
