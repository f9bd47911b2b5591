"""What a worker process may see of its surroundings: its own settings and little else.

Cloud SDKs and drivers read variables, profiles and proxies that belong to the machine, not to the customer whose
source they talk to. They find none.
"""

import ctypes
import os
import signal
import sys
import tempfile
from typing import Final

from headwater import settings

_KEPT: Final = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONWARNINGS"})
_OURS: Final = "HEADWATER_"
_PR_SET_PDEATHSIG: Final = 1


def clean() -> None:
    """Drop every variable that is not ours, keep ours from drivers, point HOME at nothing, turn look-ups off."""
    settings.withhold()
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_OURS):
            del os.environ[name]
    os.environ.update(
        HOME="/nonexistent",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        # google-cloud-storage otherwise asks for the bucket's metadata behind our back, for telemetry.
        DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA="true",
        NO_PROXY="127.0.0.1,localhost",
    )
    tempfile.tempdir = None


def end_with(parent: int) -> None:
    """On Linux, no life without `parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before we asked to be told
