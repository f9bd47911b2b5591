"""Where benches of the whole product stand: real processes on stores of their own, with production's clock."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import engines
from engines import Engine, Stores

# A server as an operator would set it up for this: durable, with room.
POSTGRES: Final = {"shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
# The tests' clocks are short; these are the product's.
_CLOCKWORK: Final = {
    "HEADWATER_LEASE_SECONDS": "30",
    "HEADWATER_HEARTBEAT_SECONDS": "5",
    "HEADWATER_GRACE_SECONDS": "5",
    "HEADWATER_RERING_SECONDS": "15",
}


@contextmanager
def engine(*, postgres: Mapping[str, str] = POSTGRES, **settings: str) -> Iterator[tuple[Engine, Stores]]:
    """An engine with nothing running yet; `settings` are environment variables for all its processes."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-bench-"))
    folder.chmod(0o755)  # root's stores run as another account
    try:
        with engines.on_own_stores(folder, postgres=postgres, **_CLOCKWORK, **settings) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
