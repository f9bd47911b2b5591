"""The transit engine of HashiCorp Vault as a key provider: the master key never leaves it.

What is bound is sent as `associated_data`, which Vault checks whether or not the key is a derived one. Its own `rewrap`
does not take it, so that rewrapping is unwrapping and wrapping. Source:
https://developer.hashicorp.com/vault/api-docs/secret/transit
"""

import base64
import http.client
from typing import Any, Final

from headwater.errors import CannotUnseal, KeyUnavailable
from headwater.settings import HashicorpSettings
from headwater.vault import hashicorp
from headwater.vault.hashicorp import Client, Refused
from headwater.vault.providers import Wrapped

_PREFIX: Final = "vault:v"


class Transit:
    """Wraps with `HEADWATER_TRANSIT_KEY`, in its newest version."""

    name = "transit"

    def __init__(self, settings: HashicorpSettings) -> None:
        self._client = Client(settings)
        self._mount, self._key = settings.transit_mount, settings.transit_key

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        try:
            ciphertext = self._ask("encrypt", plaintext=_text(key), associated_data=_text(context))["ciphertext"]
            version = ciphertext.removeprefix(_PREFIX).partition(":")[0]
        except Refused as error:
            raise hashicorp.refused(error, f"encrypting with {self._mount}/{self._key}") from error
        except (KeyError, AttributeError) as error:
            raise _no_vault() from error
        return Wrapped(self.name, f"{self._mount}/{self._key}:v{version}", ciphertext.encode())

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        try:
            ciphertext = wrapped.blob.decode("ascii", "replace")
            return base64.b64decode(
                self._ask("decrypt", ciphertext=ciphertext, associated_data=_text(context))["plaintext"]
            )
        except Refused as error:
            if error.status == http.client.BAD_REQUEST:
                raise CannotUnseal from error
            raise hashicorp.refused(error, f"decrypting with {self._mount}/{self._key}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise _no_vault() from error

    def rewrap(self, wrapped: Wrapped, context: bytes) -> Wrapped:
        return self.wrap(self.unwrap(wrapped, context), context)

    def _ask(self, operation: str, **body: str) -> Any:
        return self._client.request("POST", f"{self._mount}/{operation}/{self._key}", body)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _no_vault() -> KeyUnavailable:
    return KeyUnavailable(hint="What answers at HEADWATER_HASHICORP_URL is no transit engine.")
