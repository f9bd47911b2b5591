"""docs/connectors.md builds a connector: installed as an outsider's package, it passes its suite and syncs."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import making
import pytest

from headwater.access.organizations import CreatedOrganization
from headwater.connectors import registry
from headwater.db import Connection
from headwater.errors import JobError
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Succeeded
from headwater.settings import EgressSettings, JobSettings
from headwater.vault.providers import KeyFile
from headwater_cli import faults, home, processes
from headwater_worker.connectors import opening
from headwater_worker.connectors.conformance import FileConnectorConformance
from headwater_worker.context import JobContext
from headwater_worker.handlers import connection_test, sync
from headwater_worker.progress import Reporter

_FILE = re.compile(r"^### `(?P<name>[^`]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TREE = re.compile(r"^http-index/\n(?P<lines>(?:  .+\n)+)```", re.MULTILINE)
_SETTINGS = JobSettings()
_RECORDS = b'{"id": 1}\n{"id": 2}\nnonsense\n'


def guide() -> str:
    """The page."""
    return home.checkout().joinpath("docs/connectors.md").read_text(encoding="utf-8")


def files() -> dict[str, str]:
    """{path: text} of the package as a reader has it at the end; what the page calls empty is."""
    tree = _TREE.search(guide())
    assert tree is not None
    empty = {line.split()[0]: "" for line in tree["lines"].splitlines() if line.endswith("(empty)")}
    return empty | {found["name"]: found["text"] for found in _FILE.finditer(guide())}


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python module in a folder, with nothing of this process's environment."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=processes.base_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def run_suite(package: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The package's tests, from where its source cannot be imported by chance."""
    return run(package.parent, "pytest", "-vv", "-p", "no:cacheprovider", *flags, str(package / "tests"), **environment)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader of the page ends up with."""
    folder = tmp_path_factory.mktemp("guide") / "http-index"
    for name, text in files().items():
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed, with its entry points."""
    site = tmp_path_factory.mktemp("site")
    flags = ("--offline", "--no-cache", "--no-deps", "--no-build-isolation")
    done = run(package, "uv", "pip", "install", *flags, "--python", sys.executable, "--target", str(site), ".")
    assert done.returncode == 0, done.stderr
    return site


def _forget_what_is_installed() -> None:
    registry.specs.cache_clear()
    opening.runtimes.cache_clear()


@pytest.fixture
def outside(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process has the package installed."""
    monkeypatch.syspath_prepend(installed)
    _forget_what_is_installed()
    yield
    _forget_what_is_installed()
    for name in [name for name in sys.modules if name.partition(".")[0] == "http_index"]:
        del sys.modules[name]


def load(path: Path) -> ModuleType:
    """A module that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_file_that_it_lists() -> None:
    """And lists every file that it has."""
    tree = _TREE.search(guide())
    assert tree is not None
    assert {line.split()[0] for line in tree["lines"].splitlines()} == files().keys()


def test_the_code_is_what_it_asks_others_to_write(package: Path) -> None:
    """It passes this project's own rules for code."""
    config = str(home.checkout() / "pyproject.toml")
    for command in (("check", "--config", config), ("format", "--check", "--config", config)):
        done = run(package, "ruff", *command, "--no-cache", ".")
        assert done.returncode == 0, done.stdout


def test_its_suite_passes_as_a_reader_runs_it(package: Path, installed: Path, tmp_path: Path) -> None:
    """Every test of the suite that ships runs, none is skipped, and each fault is reported."""
    report = tmp_path / "faults"
    done = run_suite(package, "-W", "error", PYTHONPATH=str(installed), HEADWATER_CONFORMANCE_REPORT=str(report))
    summary = done.stdout.splitlines()[-1]
    passed = re.fullmatch(r"=+ (\d+) passed in .*", summary)
    assert passed is not None, done.stdout[-5000:]
    assert int(passed[1]) > sum(name.startswith("test_") for name in dir(FileConnectorConformance))
    assert {(each.check, each.code) for each in faults.read_report(report)} >= {
        ("authenticate", "invalid_credentials"),
        ("list", "permission_denied"),
        ("target", "index_not_found"),
    }


def test_its_suite_says_what_is_wrong_with_a_broken_connector(package: Path, installed: Path, tmp_path: Path) -> None:
    """A connector that takes every refusal for a missing right fails, with what was compared."""
    broken = tmp_path / "site"
    shutil.copytree(installed, broken)
    runtime = broken / "http_index/runtime.py"
    runtime.write_text(runtime.read_text(encoding="utf-8").replace('"invalid_credentials"', '"permission_denied"'))
    done = run_suite(package, "-k", "wrong_secret", PYTHONPATH=str(broken))
    assert done.returncode == 1
    assert "('list', 'permission_denied') == ('authenticate', 'invalid_credentials')" in done.stdout


@dataclass
class Bench:
    """A place for the guide's data source, and jobs of it to claim there."""

    connection: Connection
    working: Connection
    organization: CreatedOrganization
    project_id: UUID
    master_key_file: Path

    def source(self, config: Mapping[str, Any]) -> UUID:
        """A data source without credentials."""
        organization_id = self.organization.organization_id
        made: UUID = making.make_source(self.connection, organization_id, self.project_id, config, type_="http_index")
        return made

    def put_token(self, source_id: UUID, config: Mapping[str, Any], token: str) -> None:
        """Seal its one secret."""
        organization_id, spec = self.organization.organization_id, registry.get_spec("http_index")
        secrets = {"token": token}
        making.put_credentials(self.connection, organization_id, source_id, spec, config=config, secrets=secrets)

    def claim(self, source_id: UUID, kind: str) -> JobContext:
        """A submitted and claimed job, as its handler gets it."""
        types = ["http_index"]
        answer = making.submit(self.connection, self.organization, self.project_id, source_id, kind, types=types)
        claimed = lifecycle.claim(self.working, UUID(answer["job"]["id"]), worker="tests", settings=_SETTINGS)
        assert claimed is not None
        return JobContext(
            claim=claimed,
            connection=self.working,
            progress=Reporter(),
            vault=KeyFile(self.master_key_file),
            egress=EgressSettings(egress_allow="127.0.0.0/8"),
            settings=_SETTINGS,
            interrupt=lambda: None,
        )


@pytest.fixture
def bench(
    connection: Connection, working: Connection, organization: CreatedOrganization, master_key_file: Path
) -> Bench:
    """A bench."""
    # Jobs that a test leaves running would count against the cap of the next.
    connection.execute("update job set status = 'failed' where status = 'running'")
    project_id = making.make_project(connection, organization.organization_id)
    return Bench(connection, working, organization, project_id, master_key_file)


@pytest.mark.usefixtures("outside")
def test_a_real_job_tests_and_syncs_it(package: Path, bench: Bench) -> None:
    """Claimed as by a worker: config and secret from the database, the runtime by its entry point, items in the end."""
    index_server: Any = load(package / "tests/index_server.py")
    with index_server.serve() as server:
        server.shares["library"] = {"books/a.jsonl": _RECORDS, "../leads/out.jsonl": _RECORDS}
        config = {"url": server.url, "share": "library"}
        source_id = bench.source(config)
        bench.put_token(source_id, config, index_server.READER)
        tested = connection_test.run(bench.claim(source_id, "connection_test"))
        context = bench.claim(source_id, "sync")
        outcome = sync.run(context)
    assert isinstance(tested, Succeeded)
    assert [check["code"] for check in tested.result["checks"] if check["code"]] == []
    assert tested.result["success"] is True
    progress = context.progress.snapshot()
    status = lifecycle.record(bench.working, context.claim, outcome, progress, settings=_SETTINGS)
    assert status == "partially_succeeded"
    assert progress.counters["skipped_by"] == {"unsafe_path": 1}
    assert (progress.counters["landed"], progress.counters["rejected"]) == (2, 1)


@pytest.mark.usefixtures("outside")
def test_without_a_token_nothing_is_asked(bench: Bench) -> None:
    """`missing_credentials` is heard before the runtime is opened."""
    source_id = bench.source({"url": "http://127.0.0.1:9", "share": "library"})
    tested = connection_test.run(bench.claim(source_id, "connection_test"))
    assert isinstance(tested, Succeeded)
    assert [(check["name"], check["code"]) for check in tested.result["checks"] if check["status"] == "failed"] == [
        ("config", "missing_credentials")
    ]


def test_a_worker_without_the_package_says_so(bench: Bench) -> None:
    """The job fails with `connector_missing`, as the page says."""
    source_id = bench.source({"url": "http://127.0.0.1:9", "share": "library"})
    with pytest.raises(JobError) as caught:
        connection_test.run(bench.claim(source_id, "connection_test"))
    assert caught.value.code == "connector_missing"
