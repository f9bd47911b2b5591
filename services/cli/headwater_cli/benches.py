"""What only benches need (their baselines, and what draws plots), installed beside the rest when it is first asked for.

Nothing of it is part of the product, and no newcomer waits for it.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from headwater_cli import terminal
from headwater_cli.errors import Failure


def install(checkout: Path) -> None:
    """Install bench/requirements.lock into this environment, unless it is there.

    Raises:
        Failure: it cannot be installed; with the last words of what tried.
    """
    lock, stamp = checkout / "bench/requirements.lock", Path(sys.prefix, ".stamp-bench")
    # A new .venv, or one that was brought to another lock, has lost what was here.
    base = Path(sys.prefix, ".stamp")
    wanted = hashlib.sha256(lock.read_bytes() + (base.read_bytes() if base.exists() else b"")).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    terminal.note("Installing what the benches compare with")
    argv = (sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable)
    done = subprocess.run(
        (*argv, "--require-hashes", "-r", str(lock)),
        env={"UV_SYSTEM_CERTS": "true", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failure("What the benches need cannot be installed.", hint=done.stderr.strip())
    stamp.write_text(wanted)
