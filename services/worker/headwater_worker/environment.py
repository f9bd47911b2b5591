"""What a worker process may see of its surroundings: its own settings and little else.

Cloud SDKs and drivers read variables, profiles and proxies that belong to the machine, not to the customer whose
source they talk to. They find none. What a cloud's platform tells the worker of its own identity is kept aside, for
sources that ask for it, where the operator lets them.
"""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from headwater import settings
from headwater.settings import EgressSettings

_KEPT: Final = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONWARNINGS"})
_OURS: Final = "HEADWATER_"
_PR_SET_PDEATHSIG: Final = 1
# Set by ECS, EKS, App Service and AKS. Keys that somebody put on the machine are none of them.
_IDENTITY: Final = frozenset(
    {
        "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_REGION", "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_TENANT_ID", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
    }
)  # fmt: skip

_identity: dict[str, str] = {}


def clean() -> None:
    """Drop every variable that is not ours, keep ours from drivers, point HOME at nothing, turn look-ups off."""
    settings.withhold()
    if EgressSettings().allow_ambient_credentials:
        _identity.update({name: os.environ[name] for name in _IDENTITY if os.environ.get(name)})
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


def identity() -> Mapping[str, str]:
    """The variables by which the platform told this process who it is, before `clean`; none unless they are allowed.

    Processes that are forked from it know them too. Two are secrets.
    """
    return MappingProxyType(_identity)


def end_with(parent: int) -> None:
    """On Linux, no life without `parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before we asked to be told
