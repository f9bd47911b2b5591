"""Fixtures for all: an embedded Postgres and Valkey a test process, a fresh migrated database a module."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from psycopg import sql

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.vault.providers import create_key_file
from headwater_cli import logins, migrate, stores
from headwater_cli.stores import Store

# CI runs the suite against two majors; both come in the same wheel.
POSTGRES_MAJOR = int(os.environ.get("HEADWATER_TEST_POSTGRES_MAJOR", "18"))

# Outside connectors enter as an installed package would: by their entry points.
PLUGINS = Path(__file__).parent / "plugins"
sys.path.insert(0, str(PLUGINS))

import engines  # noqa: E402 - these stand beside them
import making  # noqa: E402

# How long an example takes says how busy the machine is, and nothing of what is tried.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
# For `./dev faults mutants`: that something is found is enough, it need not be the smallest.
settings.register_profile("brief", settings.get_profile("suite"), phases=[Phase.generate])

# The tests' data is thrown away: they wait for no disk.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Store]:
    with stores.postgres(major=POSTGRES_MAJOR, settings=_FAST) as store:
        yield store


@pytest.fixture(scope="session")
def postgres(_postgres: Store) -> str:
    """The URL of this process's own Postgres, as its owner."""
    return _postgres.url


@pytest.fixture(scope="session")
def superuser(_postgres: Store) -> str:
    """The same, as the superuser: nobody else may end the server's own processes, such as an autovacuum."""
    return _postgres.admin_url


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of this process's own Valkey."""
    with stores.valkey() as store:
        yield store.url


@pytest.fixture(scope="session")
def _template(postgres: str) -> str:
    name = "template_headwater"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    migrate.upgrade(_url(postgres, name))
    logins.ensure(_url(postgres, name), {service: making.as_service(postgres, service) for service in logins.SERVICES})
    return name


@pytest.fixture(scope="session")
def fresh_database(postgres: str, superuser: str, _template: str) -> Callable[[], AbstractContextManager[str]]:
    """Makes a migrated database for the length of a block; its URL as the superuser."""

    @contextmanager
    def make() -> Iterator[str]:
        name = f"test_{ids.new().hex}"
        create = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(_template))
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(create)
        with psycopg.connect(superuser, autocommit=True) as connection:
            yield _url(superuser, name)
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    return make


@pytest.fixture(scope="module")
def database(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of a fresh, migrated database for the tests of one module, as the superuser: no policy hides a row.

    The processes under test come with `making.as_service`.
    """
    with fresh_database() as url:
        yield url


@pytest.fixture(scope="module")
def owner(postgres: str, database: str) -> str:
    """The URL of this module's database as migrations and `headwater admin` come: its owner, and no superuser."""
    return _url(postgres, database.rpartition("/")[2])


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """A connection as the job engine makes them, as the superuser."""
    with db.connect(database, application="tests") as connection:
        yield connection


@pytest.fixture
def working(database: str) -> Iterator[Connection]:
    """A connection with a worker's rights, as its runner has one: it acts for whose job it claims."""
    with db.connect(making.as_service(database, "worker"), application="tests") as connection:
        yield connection


@pytest.fixture
def scheduling(database: str) -> Iterator[Connection]:
    """A connection with the scheduler's rights."""
    with db.connect(making.as_service(database, "scheduler"), application="tests") as connection:
        yield connection


@pytest.fixture(scope="session")
def pepper_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pepper."""
    path = tmp_path_factory.mktemp("keys") / "pepper"
    create_key_file(path)
    return path


@pytest.fixture(scope="session")
def master_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A master key."""
    path = tmp_path_factory.mktemp("keys") / "master"
    create_key_file(path)
    return path


@pytest.fixture(scope="module")
def organization(database: str, pepper_file: Path, master_key_file: Path) -> CreatedOrganization:
    """An organization with an admin and a key, in this module's database."""
    return making.make_organization(database, pepper_file, master_key_file)


@pytest.fixture(scope="session")
def make_engine(superuser: str, valkey: str, master_key_file: Path, pepper_file: Path) -> Callable[..., Any]:
    """Makes job engines of real processes: see `engines.at`, which also takes database, organization and folder."""
    return functools.partial(
        engines.at, superuser=superuser, valkey=valkey, master_key_file=master_key_file, pepper_file=pepper_file
    )


def _url(url: str, database: str) -> str:
    return url.rpartition("/")[0] + "/" + database
