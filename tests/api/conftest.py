"""The API as it is deployed: uvicorn on a free port, real HTTP, real Postgres, no Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import making
import pytest
import serving
from serving import Api

from headwater import db, ids
from headwater.access import api_keys
from headwater.access.organizations import CreatedOrganization


@pytest.fixture(scope="module")
def uploads_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's uploads are kept."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def start_api(database: str, pepper_file: Path, uploads_dir: Path) -> Iterator[Callable[..., Api]]:
    """Starts APIs on this module's database, each with settings of its own beside the usual ones."""
    usual = {
        "HEADWATER_DATABASE_URL": making.as_service(database, "api"),
        "HEADWATER_PEPPER_FILE": str(pepper_file),
        "HEADWATER_UPLOADS_DIR": str(uploads_dir),
    }
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving.api(**{**usual, **settings}))


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Api]) -> Api:
    """The API on this module's database."""
    return start_api()


@pytest.fixture
def client(api: Api, organization: CreatedOrganization) -> Iterator[httpx2.Client]:
    """An admin of the organization."""
    with api.client(organization.api_key) as client:
        yield client


@pytest.fixture
def client_with_role(
    api: Api, database: str, organization: CreatedOrganization, pepper_file: Path
) -> Iterator[Callable[[str], httpx2.Client]]:
    """Makes a client whose key has a role."""
    clients: list[httpx2.Client] = []

    def make(role: str) -> httpx2.Client:
        issued = api_keys.issue(api_keys.read_pepper(pepper_file))
        with db.connect(database, application="tests") as connection:
            connection.execute(
                "insert into api_key (id, organization_id, member_id, name, role, secret_hash)"
                " values (%s, %s, %s, 'tests', %s, %s)",
                (issued.id, organization.organization_id, organization.member_id, role, issued.secret_hash),
            )
        clients.append(api.client(issued.text))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def other_organization(database: str, pepper_file: Path, master_key_file: Path) -> CreatedOrganization:
    """A second tenant in the same database."""
    return making.make_organization(database, pepper_file, master_key_file, name="Rival", email="eve@example.com")


@pytest.fixture
def other_client(api: Api, other_organization: CreatedOrganization) -> Iterator[httpx2.Client]:
    """An admin of the second tenant."""
    with api.client(other_organization.api_key) as client:
        yield client


@pytest.fixture
def project(client: httpx2.Client) -> dict[str, Any]:
    """A fresh project."""
    return created(client.post("projects", json={"name": f"project {ids.new().hex}"}))


def created(answer: httpx2.Response) -> dict[str, Any]:
    """The body of a 201."""
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body
