"""Jobs to try the engine on."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.settings import JobSettings

Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def settings() -> JobSettings:
    """Short enough for a test to see a lease run out."""
    return JobSettings(lease_seconds=0.2, heartbeat_seconds=0.05, retry_base_seconds=0)


@pytest.fixture(scope="module")
def project_id(database: str, organization: CreatedOrganization) -> UUID:
    """A project."""
    with db.connect(database, application="tests") as connection:
        return making.make_project(connection, organization.organization_id)


@pytest.fixture
def source_id(connection: Connection, organization: CreatedOrganization, project_id: UUID) -> UUID:
    """A data source of its own for each test."""
    return making.make_source(connection, organization.organization_id, project_id)


@pytest.fixture
def submit(connection: Connection, organization: CreatedOrganization, project_id: UUID, source_id: UUID) -> Submit:
    """Submit a job as the API does; `submit(kind="sync")` gives `jobs_submit`'s answer."""

    def submit(*, on: Connection = connection, **changes: Any) -> dict[str, Any]:
        return making.submit(on, organization, project_id, source_id, **changes)

    return submit
