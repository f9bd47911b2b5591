"""What a process that opens secrets makes sure of before it begins."""

import sys

from headwater import log
from headwater.errors import KeyUnavailable, WeakKey
from headwater.settings import VaultSettings
from headwater.vault import keyring

_log = log.get(__name__)


def require_strong() -> None:
    """Refuse to start with a master key that could be guessed. One that cannot be read yet may still come."""
    try:
        keyring.require_strong(VaultSettings())
    except WeakKey as error:
        _log.error("key.weak", reason=error.message, hint=error.hint)
        sys.exit(2)
    except KeyUnavailable as error:
        _log.warning("key.unavailable", reason=error.message, hint=error.hint)
