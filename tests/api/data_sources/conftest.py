"""What tests of data sources share."""

from typing import Any

import httpx2
import pytest


@pytest.fixture
def sources(project: dict[str, Any]) -> str:
    """The path of a fresh project's data sources."""
    return f"projects/{project['id']}/data-sources"


@pytest.fixture
def source(client: httpx2.Client, sources: str) -> dict[str, Any]:
    """A data source with two credentials."""
    body = {
        "name": "Orders",
        "type": "s3",
        "config": {"bucket": "my-bucket", "region": "eu-central-1"},
        "credentials": {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "correct horse"},
    }
    answer = client.post(sources, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found
