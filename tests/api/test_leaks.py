"""A connector that repeats the secrets of a request while it checks them: neither log nor answer has them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import invariants
import pytest
from engines import CANARY, Engine

from headwater import ids, masking
from headwater.access import api_keys
from headwater.access.organizations import CreatedOrganization
from headwater.webhooks import signing

ROUTES = ("create", "patch", "put", "credentials", "unsaved_test")


@dataclass(frozen=True)
class Asked:
    """An API, and what it answered to each route that takes secrets when these were ended by `!refuse` or `!fault`."""

    engine: Engine
    answers: dict[tuple[str, str], httpx2.Response]

    def said(self) -> list[dict[str, Any]]:
        """The lines of the API's log."""
        return [json.loads(line) for line in self.engine.processes[0].log.read_text().splitlines()]


@pytest.fixture(scope="module")
def asked(
    make_engine: Callable[..., Any],
    database: str,
    organization: CreatedOrganization,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asked]:
    """One API that logs whatever it is told."""
    folder = tmp_path_factory.mktemp("asked")
    with make_engine(
        database=database, organization=organization, folder=folder, HEADWATER_LOG_LEVEL="debug"
    ) as engine:
        engine.api()
        answers = {
            (route, manner): _ask(engine, route, f"{CANARY}!{manner}")
            for route in ROUTES
            for manner in ("refuse", "fault")
        }
        yield Asked(engine, answers)


def _ask(engine: Engine, route: str, password: str) -> httpx2.Response:
    project = f"projects/{ids.encode('proj', engine.project_id)}/data-sources"
    source = f"{project}/{ids.encode('dsrc', engine.source())}"
    credentials = {"password": password}
    fresh = {"If-Match": "*"}
    match route:
        case "create":
            body = {"name": f"a source {ids.new().hex}", "type": "scripted", "config": {}, "credentials": credentials}
            return engine.client.post(project, json=body)
        case "patch":
            return engine.client.patch(source, json={"credentials": credentials}, headers=fresh)
        case "put":
            return engine.client.put(source, json={"credentials": credentials}, headers=fresh)
        case "credentials":
            return engine.client.put(f"{source}/credentials", json=credentials)
        case _:
            body = {"type": "scripted", "config": {}, "credentials": credentials}
            return engine.client.post(f"{project}/test", json=body)


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_connector_repeats_is_heard_and_masked(asked: Asked, route: str) -> None:
    """It is our problem in both cases; where the connector refuses, in its words."""
    refused, failed = asked.answers[route, "refuse"], asked.answers[route, "fault"]
    assert (refused.status_code, failed.status_code) == (400, 500), refused.text + failed.text
    (field,) = refused.json()["errors"]
    assert field["pointer"] in ("/credentials/password", "/password")
    assert field["detail"].startswith("does not like any of")
    assert masking.MASK in field["detail"]
    lines = [line for line in asked.said() if line.get("request_id") == failed.json()["request_id"]]
    assert [line["event"] for line in lines][-2:] == ["request.failed", "request.handled"]
    assert len(lines) > 2
    assert masking.MASK in lines[-2]["exception"]


def test_no_answer_and_no_line_has_the_secret(asked: Asked) -> None:
    """In no spelling: as it is, in base64, in URLs, in hex, in the parts of a traceback."""
    said = asked.engine.processes[0].log.read_text() + "".join(answer.text for answer in asked.answers.values())
    assert [spelling for spelling in invariants.spellings(CANARY) if spelling in said] == []


def test_who_asks_does_not_choose_what_the_requests_line_says(asked: Asked) -> None:
    """Its path would be masked for a request that sends the path as a secret."""
    engine = asked.engine
    path = f"/api/v1/projects/{ids.encode('proj', engine.project_id)}/data-sources"
    answer = _ask(engine, "create", path)
    assert answer.status_code == 201
    engine.until(lambda: _line(asked, answer))
    assert _line(asked, answer)[0]["path"] == path


def _line(asked: Asked, answer: httpx2.Response) -> list[dict[str, Any]]:
    request_id = answer.headers["X-Request-Id"]
    return [line for line in asked.said() if (line["event"], line.get("request_id")) == ("request.handled", request_id)]


def test_a_secret_that_the_api_makes_is_masked_where_it_is_made() -> None:
    """Of a webhook, and of a key: both are shown once, and only by the answer."""
    with masking.masks_here():
        made = [signing.new_secret(), api_keys.issue(bytes(32)).text]
        assert all(masking.MASK in masking.masked(secret) for secret in made)
    assert [masking.masked(secret) for secret in made] == made
