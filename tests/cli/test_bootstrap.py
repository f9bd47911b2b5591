"""`./dev` before anything is installed."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headwater_cli import home

_DEV = home.checkout() / "dev"


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    """The script, which stands in no package: nothing is installed when it runs."""
    spec = importlib.util.spec_from_file_location("bootstrap", home.checkout() / "services/cli/bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that needs no package."""
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'empty'\nversion = '1'\n")
    return tmp_path


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_a_new_enough_python_it_says_so_in_plain_words(tmp_path: Path) -> None:
    """No traceback, no half-made folder."""
    _program(tmp_path / "python3", 'case "$1" in --version) echo "Python 3.9.2";; *) exit 1;; esac')
    for tool in ("dirname", "head"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        ("/bin/sh", str(_DEV)), env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Headwater needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_stamp_changes_with_all_that_an_installation_depends_on(bootstrap: ModuleType, checkout: Path) -> None:
    """Moved checkouts too: an editable install holds the absolute path."""
    stamps = [bootstrap.stamp_of(checkout)]
    (checkout / "requirements.lock").write_text("a==1")
    stamps.append(bootstrap.stamp_of(checkout))
    (checkout / "pyproject.toml").write_text("")
    stamps.append(bootstrap.stamp_of(checkout))
    shutil.copytree(checkout, checkout / "moved")
    stamps.append(bootstrap.stamp_of(checkout / "moved"))
    assert len(set(stamps)) == 4
    assert bootstrap.stamp_of(checkout) == stamps[2]


def test_a_half_made_venv_is_removed_and_the_message_names_the_package(
    bootstrap: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Debian without python3-venv leaves a folder with a Python and no pip."""
    half = _program(checkout / "python", 'for last; do :; done; mkdir -p "$last/bin"; exit 1')
    monkeypatch.setattr(sys, "executable", str(half))
    (checkout / "mkdir").symlink_to(shutil.which("mkdir") or "")  # and nothing else: no uv, no apt-get
    monkeypatch.setenv("PATH", str(checkout))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(bootstrap.CannotInstallError, match=f"install the package {version}-venv"):
        bootstrap.make_venv(checkout / ".venv")
    assert not (checkout / ".venv").exists()


def test_without_ensurepip_a_venv_is_made_all_the_same(
    bootstrap: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next rung: a venv without pip, filled from outside."""
    real = sys.executable
    script = f"""case "$*" in
        *--without-pip*|*"-m pip"*) exec {real} "$@";;
        *) for last; do :; done; mkdir -p "$last/bin"; exit 1;;
    esac"""
    monkeypatch.setattr(sys, "executable", str(_program(checkout / "python", script)))
    monkeypatch.setenv("PATH", os.defpath)
    bootstrap.make_venv(checkout / ".venv")
    assert (checkout / ".venv/bin/uv").exists()


def test_two_at_once_install_once(checkout: Path) -> None:
    """The second waits for the first and finds the work done."""
    (checkout / "services/cli").mkdir(parents=True)
    for name in ("dev", "services/cli/bootstrap.py"):
        shutil.copy(home.checkout() / name, checkout / name)
    (checkout / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'none'\nbackend-path = ['.']\n"
        "[project]\nname = 'empty'\nversion = '1'\n"
    )
    (checkout / "none.py").write_text(_BACKEND)
    started = [
        subprocess.Popen((str(checkout / "dev"), "hello"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [out for out, _ in said] == ["['hello']\n", "['hello']\n"]
    assert sum("Installed in" in err for _, err in said) == 1


_BACKEND = '''
"""A build backend without dependencies: one wheel with a package that prints its arguments."""
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "empty-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("headwater_cli/__main__.py", "import sys; print(sys.argv[1:])")
        wheel.writestr("headwater_cli/__init__.py", "")
        wheel.writestr("empty-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: empty\\nVersion: 1\\n")
        wheel.writestr("empty-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("empty-1.dist-info/RECORD", "")
    return name
'''
