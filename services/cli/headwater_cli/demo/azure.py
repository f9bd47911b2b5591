"""`python -m headwater_cli.demo.azure --port N --state FILE --cache FOLDER`: Azurite with some files, as a process.

Azurite comes from npm, on the wheel's own node; its packages are installed once into the cache. Prints the line
`ready` once the container is filled, and serves until SIGTERM or SIGINT. What lies in it lives in memory. Exits with 1,
and why in the last line of stderr, when it cannot be had.
"""

import argparse
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from azure.storage.blob import BlobServiceClient

from headwater_cli import home, processes, typescript
from headwater_cli.demo import datasets, selections, signals, state
from headwater_cli.demo.state import State
from headwater_cli.errors import Failure
from headwater_cli.ports import LOOPBACK

_START_SECONDS: Final = 60
_POLL_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 5
_SAID_CHARACTERS: Final = 200


def main() -> int:
    """Serve until told to stop; 0 after a clean stop, 1 when Azurite cannot be had or has ended."""
    arguments = _arguments()
    # Until Azurite is there, a stop ends the installation too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        packages = _packages(arguments.cache)
        with signals.told_to_stop() as told:
            return _serve(arguments.port, _state(arguments.state), packages, told)
    except Failure as failure:
        sys.stderr.write(f"{failure.message} {' '.join(failure.hint.split())}".rstrip() + "\n")
        return 1


def _packages(cache: Path) -> Path:
    """Azurite's packages. Raises Failure in the words of whoever reads one line of it."""
    try:
        return typescript.installed_packages(cache, home.checkout() / typescript.AZURITE)
    except Failure as failure:
        said = textwrap.shorten(failure.hint, _SAID_CHARACTERS, placeholder=" ...")
        raise Failure(f"Azurite cannot be installed from npm: {failure.message}", hint=said) from failure
    except subprocess.TimeoutExpired as error:
        raise Failure("Azurite cannot be installed: npm does not come to an end.") from error


def _serve(port: int, known: State, packages: Path, told: socket.socket) -> int:
    with _azurite(port, known, packages, told) as process:
        while process is not None and process.poll() is None and not _waited(told, 1):
            pass
        return 0 if process is None or process.poll() is None else 1


@contextmanager
def _azurite(
    port: int, known: State, packages: Path, told: socket.socket
) -> Iterator["subprocess.Popen[bytes] | None"]:
    """Run Azurite with its files in it; None if told to stop before that. Raises Failure."""
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        process = _spawned(port, known, packages, folder)
        try:
            if not _listens(port, process, told):
                yield None
                return
            _fill(known)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _spawned(port: int, known: State, packages: Path, folder: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        (
            *(str(typescript.program_path()), str(packages / "node_modules/azurite/dist/src/blob/main.js")),
            *("--blobHost", LOOPBACK, "--blobPort", str(port), "--inMemoryPersistence", "--silent"),
            *("--skipApiVersionCheck", "--disableTelemetry"),
        ),
        env={
            **processes.base_environment(),
            "AZURITE_ACCOUNTS": f"{known.azure_account}:{known.azure_key}",
            "HOME": folder,
        },
        stdin=subprocess.DEVNULL,
        cwd=folder,
    )


def _listens(port: int, process: "subprocess.Popen[bytes]", told: socket.socket) -> bool:
    """Wait until Azurite takes connections; False if told to stop. Raises Failure if it does not."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return True
        if _waited(told, _POLL_SECONDS):
            return False
    raise Failure("Azurite does not start.")


def _waited(told: socket.socket, seconds: float) -> bool:
    """True once told to stop; False after `seconds`."""
    return bool(select.select([told], [], [], seconds)[0])


def _fill(known: State) -> None:
    credential = {"account_name": known.azure_account, "account_key": known.azure_key}
    url = f"{known.azure_url}/{known.azure_account}"
    with BlobServiceClient(url, credential=credential) as client:
        container = client.create_container(known.azure_container)
        for path, body in selections.chosen(datasets.corpus(), selections.AZURE).items():
            container.upload_blob(path, body)


def _state(path: Path) -> State:
    known = state.find(path)
    if known is None:
        raise Failure(f"There is no state in {path}.", hint="python -m headwater_cli.demo writes it.")
    return known


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headwater_cli.demo.azure", description="The demo's Azurite.")
    parser.add_argument("--port", type=int, required=True, help="loopback port to listen on")
    parser.add_argument("--state", type=Path, required=True, help="what headwater_cli.demo wrote")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the npm packages")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
