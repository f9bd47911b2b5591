"""A data source that takes files."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from headwater import ids

MakeSource = Callable[..., str]


@pytest.fixture
def make_source(client: httpx2.Client, project: dict[str, Any]) -> MakeSource:
    """Makes a source with this config; its path."""

    def make(type_: str = "file_upload", **config: Any) -> str:
        sources = f"projects/{project['id']}/data-sources"
        answer = client.post(sources, json={"name": ids.new().hex, "type": type_, "config": config})
        assert answer.status_code == 201, answer.text
        return f"{sources}/{answer.json()['id']}"

    return make


@pytest.fixture
def uploads(make_source: MakeSource) -> str:
    """The path of the uploads of a fresh source that takes anything."""
    return f"{make_source()}/uploads"
