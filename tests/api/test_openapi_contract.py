"""The OpenAPI document against the running API: no server error, no undocumented status, answers as stated."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headwater_api.main import create_app

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# The event stream of a queued job does not end by itself.
ENDLESS = "/jobs/{job_id}/events"
OPERATIONS = [
    (method, path)
    for path, methods in create_app().openapi()["paths"].items()
    for method in methods
    if not path.endswith(ENDLESS)
]


@pytest.fixture(scope="module")
def known(api: Any, organization: Any) -> dict[str, str]:
    """Objects to ask for, so that requests get beyond 404."""
    with api.client(organization.api_key) as client:
        project = client.post("projects", json={"name": "contract"}).json()["id"]
        config = {"bucket": "b-ucket", "region": "eu-central-1"}
        sources = f"projects/{project}/data-sources"
        source = client.post(sources, json={"name": "s", "type": "s3", "config": config}).json()["id"]
        job = client.post(f"{sources}/{source}/test").json()["id"]
        takes_files = client.post(sources, json={"name": "u", "type": "file_upload", "config": {}}).json()["id"]
        client.post(f"{sources}/{takes_files}/uploads", params={"name": "0"}, content=b"x")
        webhook = client.post("webhooks", json={"url": "https://hooks.example.com/"}).json()["id"]
        delivery = client.post(f"webhooks/{webhook}/test").json()["id"]
    return {
        "project_id": project, "data_source_id": source, "job_id": job, "takes_files": takes_files,
        "webhook_id": webhook, "delivery_id": delivery,
    }  # fmt: skip


@pytest.fixture(scope="module")
def schema(api: Any) -> Any:
    """The document as the running API serves it."""
    return schemathesis.openapi.from_url(api.url.removesuffix("/api/v1") + "/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_api_does_what_its_document_says(
    method: str, path: str, schema: Any, known: dict[str, str], organization: Any
) -> None:
    """Generated requests, good and bad, with ids that exist."""

    @given(case=schema[path][method].as_strategy())
    @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def conforms(case: Any) -> None:
        case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if "/uploads" in path:
            case.path_parameters["data_source_id"] = known["takes_files"]
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {organization.api_key}"}
        if case.query and "wait" in case.query:
            case.query["wait"] = 0
        assert case.call_and_validate(checks=CHECKS) is not None

    conforms()
