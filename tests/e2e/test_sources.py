"""Every further source over HTTP alone: created, tested with right and wrong secrets, listed, brought in, read."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import api_stub
import pytest
from api_stub import AUTH, ApiStub, Asked, Reply

from headwater_cli.errors import Failure

# The emulators stand beside the tests of their connectors.
from ..worker.connectors import azurite, gcs_emulator  # noqa: TID252
from ..worker.connectors.gcs_emulator import Gate  # noqa: TID252

pytestmark = pytest.mark.e2e

FILES = {
    "a/1.jsonl": b'{"id": 1}\n{"id": 2}\nnot json\n',
    "a/2.csv": b"id,name\n3,Ada\n",
    "b/3.json": b'[{"id": 4}]',
}
RECORDS = [
    ("a/1.jsonl", {"id": 1}),
    ("a/1.jsonl", {"id": 2}),
    ("a/2.csv", {"id": "3", "name": "Ada"}),
    ("b/3.json", {"id": 4}),
]


@dataclass(frozen=True)
class Served:
    """A store or an API with something in it, and what the product must be told to get there."""

    config: dict[str, Any]
    right: dict[str, str]
    wrong: dict[str, str]
    listed: list[str]
    records: list[tuple[str, dict[str, Any]]]
    refused: int


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    """The emulator, which must run before the stack is told of its token endpoint."""
    with gcs_emulator.serve() as gate:
        yield gate


@pytest.fixture(scope="module")
def far_stack(start_stack: Callable[..., Any], gate: Gate, request: pytest.FixtureRequest) -> Any:
    """A stack that gets its tokens for Google's storage from the gate."""
    major = os.environ.get("HEADWATER_TEST_POSTGRES_MAJOR", "18")
    own = {} if major == "18" else {"HEADWATER_DATABASE_URL": request.getfixturevalue("postgres")}
    # Stacks that start at one moment would take the same port for free.
    ports = {"HEADWATER_API_PORT": "0", "HEADWATER_FLOWER_PORT": "0"}
    # The demo, which each of three stacks would fill at the same moment, is none of what is looked at here.
    return start_stack(demo=False, HEADWATER_GCS_TOKEN_URL=gate.token_url, **ports, **own)


@contextmanager
def gcs(gate: Gate) -> Iterator[Served]:
    """A bucket."""
    name = f"bucket-{secrets.token_hex(4)}"
    gate.create_bucket(name)
    for path, body in FILES.items():
        gate.put(name, path, body)
    yield Served(
        {"bucket": name, "endpoint_url": gate.url},
        {"service_account_json": gcs_emulator.key_file(gcs_emulator.READER)},
        {"service_account_json": gcs_emulator.key_file(gcs_emulator.READER, signed_with="ours")},
        sorted(FILES),
        RECORDS,
        refused=1,
    )


@contextmanager
def azure_blob(_gate: Gate) -> Iterator[Served]:
    """A container."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(azurite.serve())
        except Failure as failure:
            if "CI" in os.environ:
                raise
            pytest.skip(f"Azurite cannot be installed from npm: {failure}")
        name = f"container-{secrets.token_hex(4)}"
        container = server.client().create_container(name)
        for path, body in FILES.items():
            container.upload_blob(path, body)
        yield Served(
            {"container": name, "account": azurite.ACCOUNT, "endpoint_url": server.url},
            {"account_key": azurite.KEY},
            {"account_key": "bm90LXRoZS1rZXk="},
            sorted(FILES),
            RECORDS,
            refused=1,
        )


@contextmanager
def api(_gate: Gate) -> Iterator[Served]:
    """An API of seven records on three pages, one of them no number where the key should be."""
    config, credentials, wanted = AUTH["bearer"]
    with api_stub.running() as stub:
        stub.records = [{"id": number, "name": f"n{number}"} for number in range(6)] + [{"name": "no key"}]
        stub.answer = _guarded(stub, wanted)
        yield Served(
            api_stub.config(stub, "cursor", record_key="id", **config),
            credentials,
            {"token": "wr0ng"},
            ["/v1/items"],
            [("/v1/items", record) for record in stub.records[:-1]],
            refused=1,
        )


def _guarded(stub: ApiStub, wanted: dict[str, str]) -> Callable[[Asked], Reply]:
    pages = api_stub.paged(stub, "cursor")

    def answer(asked: Asked) -> Reply:
        known = all(asked.headers.get(name) == value for name, value in wanted.items())
        return pages(asked) if known else Reply(b'{"error": "who are you?"}', 401)

    return answer


def _tested(stack: Any, source: str) -> tuple[bool, list[str], str]:
    """Whether a connection test succeeds, the codes of its failed checks, and what the source's status is then."""
    job = stack.ended(stack.call("POST", f"{source}/test", 202))
    assert job["status"] == "succeeded", job
    codes = [check["code"] for check in job["result"]["checks"] if check["status"] == "failed"]
    return job["result"]["success"], codes, stack.get(source)["status"]


@pytest.mark.parametrize("served", [gcs, azure_blob, api])
def test_a_source_is_created_tested_listed_and_synced(
    far_stack: Any, gate: Gate, served: Callable[[Gate], Any]
) -> None:
    """With the wrong secret it says so, with the right one everything is there; no answer repeats a secret."""
    type_ = served.__name__
    with served(gate) as what:
        project = far_stack.project(type_)
        body = {"name": type_, "type": type_, "config": {**what.config, "type": type_}}
        source = f"{project}/data-sources/" + far_stack.call("POST", f"{project}/data-sources", 201, json=body)["id"]

        far_stack.call("PUT", f"{source}/credentials", 200, json=what.wrong)
        assert _tested(far_stack, source) == (False, ["invalid_credentials"], "failing")
        far_stack.call("PUT", f"{source}/credentials", 200, json=what.right)
        assert _tested(far_stack, source) == (True, [], "ready")

        listing = far_stack.ended(far_stack.call("POST", f"{source}/files", 202))
        assert listing["result"]["file_count"] == len(what.listed), listing
        assert [file["path"] for file in far_stack.every(f"{source}/files")] == what.listed

        sync = far_stack.ended(far_stack.call("POST", f"{source}/sync", 202))
        assert sync["status"] == "partially_succeeded", sync
        assert [(item["path"], item["data"]) for item in far_stack.every(f"{source}/items")] == what.records
        assert len(list(far_stack.every(f"{source}/rejects"))) == what.refused
        after = far_stack.get(source)
        assert (after["item_count"], after["error_count"]) == (len(what.records), what.refused)
        shown = json.dumps([after, listing, sync, far_stack.get(f"{source}/credentials")])
        assert not [secret for secret in what.right.values() if json.dumps(secret)[1:-1] in shown]
