"""The suite that ships: what an outsider may rely on beside its tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.connectors.local_files import SPEC
from headwater_cli import home, processes
from headwater_worker.connectors.conformance import FileSourceConformance

SUITE = "services/worker/headwater_worker/connectors/conformance.py"


class Suite(FileSourceConformance):
    """A suite that observes, and has no tests to run."""

    __test__ = False
    spec = SPEC


def test_only_the_suite_needs_pytest() -> None:
    """Workers are installed without it."""
    root = home.checkout()
    needing = [
        path.relative_to(root).as_posix()
        for folder in ("shared", "services")
        for path in root.joinpath(folder).rglob("*.py")
        if "import pytest" in path.read_text(encoding="utf-8")
    ]
    assert needing == [SUITE]


def test_the_suite_is_imported_without_the_checkouts_tests(tmp_path: Path) -> None:
    """It is a module of the installed package and needs nothing beside it."""
    code = (
        "import sys, headwater_worker.connectors.conformance; print([n for n in sys.modules if n.startswith('tests')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=processes.base_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_what_is_observed_is_appended_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of JSON each, behind what other suites wrote."""
    report = tmp_path / "report"
    report.write_text("{}\n", encoding="utf-8")
    monkeypatch.setenv("HEADWATER_CONFORMANCE_REPORT", str(report))
    checks = [
        {"name": "list", "status": "passed", "code": None},
        {"name": "read", "status": "failed", "code": "timeout"},
    ]
    Suite().observed_in({"checks": checks}, "slow disk")
    Suite().observed("file that is gone", "file_not_found")
    assert [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()] == [
        {},
        {"source": "local_files", "fault": "slow disk", "check": "read", "code": "timeout"},
        {"source": "local_files", "fault": "file that is gone", "check": "", "code": "file_not_found"},
    ]


def test_without_a_report_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite leaves no files behind that nobody asked for."""
    monkeypatch.delenv("HEADWATER_CONFORMANCE_REPORT", raising=False)
    monkeypatch.chdir(tmp_path)
    Suite().observed("file that is gone", "file_not_found")
    assert list(tmp_path.iterdir()) == []
