"""A plant for all scenarios of a test process: API and scheduler run, workers come with each scenario."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import invariants
import making
import pytest
import redis
from engines import Engine

# The drills stand beside.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def plant(
    make_engine: Callable[..., Any],
    fresh_database: Callable[[], AbstractContextManager[str]],
    pepper_file: Path,
    master_key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """The engine that the scenarios share: starting API and scheduler takes longer than most of them."""
    with fresh_database() as database:
        organization = making.make_organization(database, pepper_file, master_key_file)
        folder = tmp_path_factory.mktemp("plant")
        with make_engine(database=database, organization=organization, folder=folder) as engine:
            yield engine


@pytest.fixture
def engine(plant: Engine) -> Iterator[Engine]:
    """API and scheduler run, and no worker. After the scenario, when every job has ended, every promise holds.

    A scenario that wants an API or a scheduler of its own kills the plain one; it is back for the next.
    """
    plant.ready()
    # Rings of the scenario before that nobody took would keep the scheduler from ringing.
    with redis.Redis.from_url(plant.redis_url) as client:
        client.flushall()
    yield plant
    # A scenario that failed may have left them cut off.
    plant.postgres.mode = plant.doorbell.mode = "pass"
    plant.ready()
    plant.settled()
    invariants.check(plant)
    plant.kill("worker")
