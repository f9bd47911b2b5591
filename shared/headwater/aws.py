"""botocore, closed off: the machine's `AWS_*`, `~/.aws` and proxies have no say in clients of the operator's."""

import importlib.util
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from botocore.session import Session

_FILE_VARIABLES: Final = frozenset({"config_file", "credentials_file"})
_ROLE_SECONDS: Final = 2
_ROLE_ATTEMPTS: Final = 2


def require(setting: str) -> None:
    """Make sure that botocore is installed, which `setting` needs. Raises `RuntimeError`."""
    if importlib.util.find_spec("botocore") is None:
        raise RuntimeError(f"{setting} needs botocore: install headwater[s3].")


def session(*, with_role: bool = False) -> "Session":
    """A session that finds nothing by itself, but `with_role` the role of the machine it runs on."""
    # Loaded where it is used, and nowhere else.
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES  # noqa: PLC0415
    from botocore.credentials import CredentialResolver, InstanceMetadataProvider  # noqa: PLC0415
    from botocore.session import Session  # noqa: PLC0415
    from botocore.utils import InstanceMetadataFetcher  # noqa: PLC0415

    variables = {
        name: (None, None, os.devnull if name in _FILE_VARIABLES else default, conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    made = Session(session_vars=variables)
    role: list[Any] = []
    if with_role:
        # Without the environment, which turns the look-up off for everybody else in this process.
        fetcher = InstanceMetadataFetcher(timeout=_ROLE_SECONDS, num_attempts=_ROLE_ATTEMPTS, env={})
        role.append(InstanceMetadataProvider(iam_role_fetcher=fetcher))
    made.register_component("credential_provider", CredentialResolver(role))
    return made
