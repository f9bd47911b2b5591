"""The job engine as real processes: workers and schedulers on this module's database and this process's Valkey."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import Engine

from headwater.access.organizations import CreatedOrganization


@pytest.fixture
def engine(
    make_engine: Callable[..., Any], database: str, organization: CreatedOrganization, tmp_path: Path
) -> Iterator[Engine]:
    """An engine with nothing running yet, its clockwork shortened."""
    with make_engine(database=database, organization=organization, folder=tmp_path) as engine:
        yield engine
