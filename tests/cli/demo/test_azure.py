"""The demo's Azurite, where it cannot be had."""

import subprocess
import sys
from pathlib import Path

from headwater_cli import home, ports, processes


def test_without_npm_one_line_says_why(tmp_path: Path) -> None:
    """Exit code 1, and the last line of stderr is the reason."""
    argv = [sys.executable, "-m", "headwater_cli.demo.azure", "--port", str(ports.free_port())]
    argv += ["--state", str(tmp_path / "demo.json"), "--cache", str(tmp_path / "cache")]
    offline = {"npm_config_offline": "true", "npm_config_cache": str(tmp_path / "npm"), "HOME": str(tmp_path)}
    done = subprocess.run(
        argv,
        env={**processes.base_environment(), **offline},
        cwd=home.checkout(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Azurite cannot be installed from npm: ")
    assert list((tmp_path / "cache").iterdir()) == []
