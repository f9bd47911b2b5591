"""The demo's Google Cloud Storage."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.auth import crypt, jwt

from headwater_cli.demo import gcs, state
from headwater_cli.demo.state import Ports, State

_FILES = {"a.csv": b"id\n1\n", "b/c.csv": b"id\n2\n", "empty": b""}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> State:
    """Two accounts' keys are never the same: this is the demo's."""
    folder = tmp_path_factory.mktemp("state")
    return state.ensure(folder / "demo.json", ports=Ports(bucket=1, api=2, gcs=3, azure=4), files=folder)


@pytest.fixture
def client(known: State) -> Iterator[httpx2.Client]:
    """Of a server with three files."""
    account, key = known.gcs_account, known.gcs_private_key
    with (
        gcs.serve(0, account=account, private_key=key, bucket="bucket-1", files=_FILES) as url,
        httpx2.Client(base_url=url) as made,
    ):
        yield made


def _granted(client: httpx2.Client, account: str, key: str, **changes: Any) -> httpx2.Response:
    now = int(time.time())
    claims = {"iss": account, "aud": f"{str(client.base_url).rstrip('/')}/token", "iat": now, "exp": now + 3600}
    assertion = jwt.encode(crypt.RSASigner.from_string(key), claims | changes).decode()
    return client.post("/token", data={"assertion": assertion})


def _reader(client: httpx2.Client, known: State) -> dict[str, str]:
    answer = _granted(client, known.gcs_account, known.gcs_private_key)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_a_listing_has_pages(client: httpx2.Client, known: State) -> None:
    """Every file once, in the order of the bytes of its name."""
    headers, query, found = _reader(client, known), {"maxResults": "2"}, []
    while True:
        page = client.get("/storage/v1/b/bucket-1/o", params=query, headers=headers).json()
        found.append([item["name"] for item in page["items"]])
        if "nextPageToken" not in page:
            break
        query["pageToken"] = page["nextPageToken"]

    assert found == [["a.csv", "b/c.csv"], ["empty"]]


def test_a_file_is_read_as_it_was_written(client: httpx2.Client, known: State) -> None:
    """Byte for byte."""
    answer = client.get("/download/storage/v1/b/bucket-1/o/b%2Fc.csv?alt=media", headers=_reader(client, known))

    assert answer.content == b"id\n2\n"


def test_nothing_is_shown_without_a_token(client: httpx2.Client) -> None:
    """401, for no token and for one that was never given."""
    asked = [client.get("/storage/v1/b/bucket-1/o", headers=headers) for headers in ({}, {"Authorization": "Bearer x"})]

    assert [answer.status_code for answer in asked] == [401, 401]


@pytest.mark.parametrize(
    "changes", [{"iss": "other@example.com"}, {"aud": "http://127.0.0.1:1/token"}, {"iat": 1, "exp": 2}]
)
def test_another_claim_gets_no_token(client: httpx2.Client, known: State, changes: dict[str, Any]) -> None:
    """Signed with the right key, for another account, endpoint or time."""
    answer = _granted(client, known.gcs_account, known.gcs_private_key, **changes)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_another_key_gets_no_token(client: httpx2.Client, known: State, tmp_path: Path) -> None:
    """The signature is checked."""
    other = state.ensure(tmp_path / "demo.json", ports=Ports(bucket=1, api=2, gcs=3, azure=4), files=tmp_path)
    answer = _granted(client, known.gcs_account, other.gcs_private_key)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
