"""What the tests of the local stack share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater_cli import places


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter: pytest's own are closed to the account that root's stores run as."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-test-"))
    folder.chmod(0o755)
    yield folder
    for record in folder.rglob("*.json"):
        places.forget(record.with_suffix(""))
    shutil.rmtree(folder, ignore_errors=True)
