"""The key providers that the operator configured, as one: the one in use wraps, and each reads what it wrapped."""

from headwater.errors import KeyUnavailable
from headwater.settings import VaultSettings
from headwater.vault.aws_kms import AwsKms
from headwater.vault.providers import KeyFile, KeyProvider, KeyVariable, Wrapped
from headwater.vault.transit import Transit


class Keyring:
    """The provider `current`, and `others` whose wrappings still have to be read."""

    def __init__(self, current: KeyProvider, *others: KeyProvider) -> None:
        self._current = current
        self._providers = {provider.name: provider for provider in (*others, current)}

    @property
    def name(self) -> str:
        """Of the provider in use."""
        return self._current.name

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        """See `KeyProvider`."""
        return self._current.wrap(key, context)

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        """See `KeyProvider`."""
        return self._of(wrapped).unwrap(wrapped, context)

    def rewrap(self, wrapped: Wrapped, context: bytes) -> Wrapped:
        """See `KeyProvider`; what another provider wrapped moves to the one in use."""
        if wrapped.provider == self._current.name:
            return self._current.rewrap(wrapped, context)
        return self._current.wrap(self.unwrap(wrapped, context), context)

    def _of(self, wrapped: Wrapped) -> KeyProvider:
        found = self._providers.get(wrapped.provider)
        if found is None:
            raise KeyUnavailable(
                hint=f"It was wrapped by the key provider `{wrapped.provider}`, whose settings are not given here:"
                " docs/keys.md names them."
            )
        return found


def configured(settings: VaultSettings) -> Keyring:
    """What the settings say: `key_provider` is in use, and each other one whose settings are given can still read."""
    found: dict[str, KeyProvider] = {}
    if settings.master_key_file is not None:
        found["file"] = KeyFile(settings.master_key_file)
    if settings.master_key is not None:
        found["environment"] = KeyVariable(settings.master_key)
    if settings.kms_key is not None:
        found["aws_kms"] = AwsKms(settings)
    if settings.hashicorp_url is not None and settings.transit_key is not None:
        found["transit"] = Transit(settings)
    return Keyring(found.pop(settings.key_provider), *found.values())


def require_strong(settings: VaultSettings) -> None:
    """Refuse at start what could be guessed. Raises `WeakKey`; a file that cannot be read yet may still come."""
    if settings.master_key is not None:
        KeyVariable(settings.master_key).keys()
    if settings.master_key_file is not None and settings.master_key_file.exists():
        KeyFile(settings.master_key_file).keys()
