"""botocore, closed off: the machine's `AWS_*`, `~/.aws` and proxies have no say in clients of the operator's."""

import importlib.util
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from botocore.credentials import CredentialProvider
    from botocore.session import Session

INSTANCE_METADATA_URL: Final = "http://169.254.169.254/"
"""Where an EC2 instance asks for its role."""

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
    from botocore.credentials import CredentialResolver  # noqa: PLC0415
    from botocore.session import Session  # noqa: PLC0415

    variables = {
        name: (None, None, os.devnull if name in _FILE_VARIABLES else default, conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    made = Session(session_vars=variables)
    role = [instance_role()] if with_role else []
    made.register_component("credential_provider", CredentialResolver(role))
    return made


def instance_role() -> "CredentialProvider":
    """Finds the role of the EC2 instance that this process runs on, if it has one."""
    from botocore.credentials import InstanceMetadataProvider  # noqa: PLC0415 - likewise
    from botocore.utils import InstanceMetadataFetcher  # noqa: PLC0415 - likewise

    fetcher = InstanceMetadataFetcher(
        timeout=_ROLE_SECONDS,
        num_attempts=_ROLE_ATTEMPTS,
        base_url=INSTANCE_METADATA_URL,
        # Not the environment, which turns the look-up off for everybody else in this process.
        env={},
    )
    return InstanceMetadataProvider(iam_role_fetcher=fetcher)
