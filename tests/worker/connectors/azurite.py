"""Azurite, which checks signatures, on the wheel's own node."""

import base64
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from headwater_cli import home, processes, typescript

ACCOUNT = "account1"
KEY = base64.b64encode(b"the-key-of-account1").decode()

_START_SECONDS = 30.0


@dataclass(frozen=True)
class Azurite:
    """What runs: its origin."""

    port: int

    @property
    def url(self) -> str:
        """The origin."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> BlobServiceClient:
        """A client with the account's key."""
        credential = {"account_name": ACCOUNT, "account_key": KEY}
        return BlobServiceClient(f"{self.url}/{ACCOUNT}", credential=credential, retry_total=0)


def signature(container: str, rights: str = "rl", *, starts_in: float = -60, ends_in: float = 3600) -> str:
    """A SAS of the container, valid between two moments, in seconds from now."""
    now = datetime.now(UTC)
    permission: Any = ContainerSasPermissions.from_string(rights)
    return generate_container_sas(
        ACCOUNT,
        container,
        account_key=KEY,
        permission=permission,
        start=now + timedelta(seconds=starts_in),
        expiry=now + timedelta(seconds=ends_in),
    )


@contextmanager
def serve() -> Iterator[Azurite]:
    """Run Azurite in memory; its packages are installed once.

    Raises:
        Failure: node or npm's packages cannot be had.
    """
    locked = home.checkout() / "tests/emulators/azurite"
    packages = typescript.installed_packages(home.find().cache, locked)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            (
                *(str(typescript.program_path()), str(packages / "node_modules/azurite/dist/src/blob/main.js")),
                *("--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"),
                *("--skipApiVersionCheck", "--disableTelemetry"),
            ),
            env={**processes.base_environment(), "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}", "HOME": str(folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield Azurite(_port(process, folder / "log"))


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    marker = "successfully listens on http://127.0.0.1:"
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text(errors="replace")
        if marker in text and "\n" in (rest := text.split(marker, 1)[1]):
            return int(rest.split("\n", 1)[0])
        time.sleep(0.05)
    raise RuntimeError(f"Azurite did not start:\n{log.read_text(errors='replace')}")
