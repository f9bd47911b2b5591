"""What a process that opens secrets makes sure of before it begins."""

import sys
from typing import Final

from headwater import log
from headwater.errors import KeyUnavailable, WeakKey
from headwater.settings import VaultSettings
from headwater.vault import keyring

# Where a machine of Amazon's asks for its role. Customers' requests leave by the proxy, which never lets them there.
_INSTANCE_ROLE: Final = "http://169.254.169.254"

_log = log.get(__name__)


def endpoints() -> list[str]:
    """URLs of the key providers that are configured: this process may reach them, wherever they are."""
    settings, found = VaultSettings(), []
    if settings.kms_key is not None:
        found.append(settings.kms_endpoint_url or f"https://kms.{settings.kms_region}.amazonaws.com")
        if settings.kms_secret_access_key is None:
            found.append(_INSTANCE_ROLE)
    if settings.hashicorp_url is not None:
        found.append(settings.hashicorp_url)
    return found


def require_strong() -> None:
    """Refuse to start with a master key that could be guessed. One that cannot be read yet may still come."""
    try:
        keyring.require_strong(VaultSettings())
    except WeakKey as error:
        _log.error("key.weak", reason=error.message, hint=error.hint)
        sys.exit(2)
    except KeyUnavailable as error:
        _log.warning("key.unavailable", reason=error.message, hint=error.hint)
