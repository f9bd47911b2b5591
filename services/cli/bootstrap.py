"""Makes `.venv` from the lock where it is missing or old, then becomes `python -m headwater_cli` inside it.

`./dev` runs this with any Python from 3.11 on, before anything is installed: the standard library only.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

UV = "uv==0.13.8"  # as in pyproject.toml's extra `build`
_TAIL_LINES = 12


class CannotInstallError(Exception):
    """No way is left; the message is for the person at the terminal."""


def main(checkout: Path, arguments: list[str]) -> NoReturn:
    """Install what is missing and become the CLI."""
    try:
        python = ensure(checkout)
    except CannotInstallError as error:
        sys.exit(str(error))
    # -P: a file in the caller's folder never shadows a module.
    os.execv(python, [str(python), "-P", "-m", "headwater_cli", *arguments])  # noqa: S606 (that is its task)


def ensure(checkout: Path) -> Path:
    """The Python of an up-to-date `.venv`. Only one process installs; others wait for it.

    Raises:
        CannotInstallError: every rung of the ladder broke.
    """
    venv, stamp = checkout / ".venv", stamp_of(checkout)
    if not _is_current(venv, stamp):
        with _alone(checkout):
            if not _is_current(venv, stamp):  # else another process was faster
                _install(checkout, venv, stamp)
    return venv / "bin/python"


def stamp_of(checkout: Path) -> str:
    """What an installation depends on: the lock, the project, this Python and (editable!) where the checkout is."""
    digest = hashlib.sha256()
    for part in (
        (checkout / "requirements.lock").read_bytes(),
        (checkout / "pyproject.toml").read_bytes(),
        sys.version.encode(),
        os.fsencode(checkout),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _is_current(venv: Path, stamp: str) -> bool:
    try:
        return (venv / ".stamp").read_text() == stamp and (venv / "bin/python").exists()
    except OSError:
        return False


@contextlib.contextmanager
def _alone(checkout: Path) -> Iterator[None]:
    """Hold the checkout's folder: no lock file to leave behind, and gone with the process."""
    folder = os.open(checkout, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another process is installing into .venv: waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _install(checkout: Path, venv: Path, stamp: str) -> None:
    if not os.access(checkout, os.W_OK):
        raise CannotInstallError(f"Cannot write to {checkout}: .venv has to be made there.")
    began = time.monotonic()
    _say("Installing Headwater into .venv (the first time takes 10 s to a few minutes, by the network)")
    (venv / ".stamp").unlink(missing_ok=True)
    if not _usable(venv):
        make_venv(venv)
    install_lock(checkout, venv)
    (venv / ".stamp").write_text(stamp)
    _say(f"Installed in {time.monotonic() - began:.0f} s")


def _usable(venv: Path) -> bool:
    """Whether `venv` runs, is of this Python, and can install: a half-made one is not enough."""
    python = venv / "bin/python"
    if not (venv / "bin/pip").exists() and not (venv / "bin/uv").exists():
        return False
    done = _run(str(python), "-c", "import sys; print(sys.version, end='')")
    return done is not None and done.returncode == 0 and done.stdout == sys.version


def make_venv(venv: Path) -> None:
    """A virtual environment by the first way that works here; remains of a way that broke are removed.

    Raises:
        CannotInstallError: none does.
    """
    shutil.rmtree(venv, ignore_errors=True)
    for rung in (_by_uv, _by_venv, _by_system_pip, _by_apt):
        if rung(venv):
            return
        shutil.rmtree(venv, ignore_errors=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    raise CannotInstallError(
        f"{version} here can make no virtual environment: install the package {version}-venv (or python3-venv, or uv)."
    )


def _by_uv(venv: Path) -> bool:
    uv = shutil.which("uv")
    return uv is not None and _works(uv, "venv", "-q", "--no-config", "--python", sys.executable, str(venv))


def _by_venv(venv: Path) -> bool:
    # Debian without python3-venv leaves a folder with python and no pip, and says so by its exit code.
    return _works(sys.executable, "-m", "venv", str(venv)) and (venv / "bin/pip").exists()


def _by_system_pip(venv: Path) -> bool:
    """A venv without pip, filled by the system's pip (22.3 or newer) from outside."""
    return _works(sys.executable, "-m", "venv", "--without-pip", str(venv)) and _works(
        sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "install", "-q", UV
    )


def _by_apt(venv: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    _say("Installing the system package python3-venv")
    return _works("apt-get", "update", "-q") and _works("apt-get", "install", "-qy", "python3-venv") and _by_venv(venv)


def install_lock(checkout: Path, venv: Path) -> None:
    """Exactly what the lock holds, then the checkout itself, editable. By uv; by pip where uv does not work.

    Raises:
        CannotInstallError: neither does; with the end of what the last one said.
    """
    python, lock = str(venv / "bin/python"), str(checkout / "requirements.lock")
    uv = _uv(venv)
    if uv is not None and all(
        _works(uv, "pip", *arguments)
        for arguments in (
            ("sync", "-q", "--python", python, "--require-hashes", lock),
            ("install", "-q", "--python", python, "--no-deps", "--no-build-isolation", "-e", str(checkout)),
        )
    ):
        return
    _say("uv does not work here: trying pip, which takes longer")
    for arguments in (
        ("--require-hashes", "-r", lock),
        ("--no-deps", "--no-build-isolation", "-e", str(checkout)),
    ):
        done = _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)
        if done is None or done.returncode != 0:
            said = "" if done is None else "\n".join(done.stderr.strip().splitlines()[-_TAIL_LINES:])
            raise CannotInstallError(f"Installing from requirements.lock failed. pip's last words:\n{said}")


def _uv(venv: Path) -> str | None:
    """The pinned uv inside `venv`, put there by pip if need be; else one on the PATH; else None."""
    inside = venv / "bin/uv"
    if not inside.exists() and (venv / "bin/pip").exists():
        _works(str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", UV)
    return str(inside) if inside.exists() else shutil.which("uv")


def _works(*argv: str) -> bool:
    done = _run(*argv)
    return done is not None and done.returncode == 0


def _run(*argv: str) -> subprocess.CompletedProcess[str] | None:
    """Run quietly; None if there is no such program."""
    # uv brings authorities of its own; the machine's may hold one that stands before the package index.
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
        )
    except OSError:
        return None


def _say(text: str) -> None:
    # stderr: `eval "$(./dev env)"` must see nothing of it.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
