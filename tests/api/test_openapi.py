"""The OpenAPI document."""

from typing import Any

import pytest

from headwater_api.main import create_app


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document as `/openapi.json` gives it."""
    return create_app().openapi()


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_says_what_it_is_for(document: dict[str, Any]) -> None:
    """A summary, a description and a name of its own."""
    operations = _operations(document)
    assert [
        name for name, operation in operations if not (operation.get("summary") and operation.get("description"))
    ] == []
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    """Nothing is left of the framework's own error shape."""
    for name, operation in _operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and "content" in response:
                assert list(response["content"]) == ["application/problem+json"], (name, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_guarded_operation_tells_of_its_limits(document: dict[str, Any]) -> None:
    """429 with the header fields that go with it, and 408 where a body is read whole."""
    for name, operation in _operations(document):
        if "security" not in operation:
            continue
        assert set(operation["responses"]["429"]["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}, name
        reads_body = name.startswith(("post", "put", "patch")) and "/uploads" not in name
        assert ("408" in operation["responses"]) == reads_body, name


def test_a_config_is_shown_with_the_fields_of_its_type(document: dict[str, Any]) -> None:
    """The registry's models, one for each type."""
    config = document["components"]["schemas"]["DataSourceCreate"]["properties"]["config"]
    shown = str(config.get("oneOf", config))
    assert "#/components/schemas/S3Config" in shown
    assert "bucket" in document["components"]["schemas"]["S3Config"]["properties"]


def test_a_change_names_the_header_that_it_needs(document: dict[str, Any]) -> None:
    """If-Match is a required parameter of PATCH, and 412 and 428 are documented."""
    patch = document["paths"]["/api/v1/projects/{project_id}/data-sources/{data_source_id}"]["patch"]
    headers = {
        parameter["name"]: parameter["required"] for parameter in patch["parameters"] if parameter["in"] == "header"
    }
    assert headers["If-Match"] is True
    assert {"400", "401", "403", "404", "409", "412", "428", "503"} <= patch["responses"].keys()
