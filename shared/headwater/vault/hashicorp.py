"""A client of HashiCorp Vault, or OpenBao, of the operator's: a few requests, each within seconds, past every proxy."""

import http.client
import json
import ssl
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from headwater.errors import KeyRefused, KeyUnavailable
from headwater.settings import HashicorpSettings

_SECONDS: Final = 5.0
_MOST_BYTES: Final = 1024 * 1024
# 429 and 472, 473 are standbys and quotas; 503 is a sealed one.
_AWAY: Final = frozenset({412, 429, 472, 473})
_SERVER_ERROR: Final = 500


class Refused(Exception):
    """Vault answered, and neither with what was asked for nor that it cannot now: `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Client:
    """Requests to `HEADWATER_HASHICORP_URL`, with the token that its file holds now."""

    def __init__(self, settings: HashicorpSettings) -> None:
        assert settings.hashicorp_url is not None, "the settings are checked as a whole"
        self._settings = settings
        self._origin = urlsplit(settings.hashicorp_url)

    def request(self, method: Literal["GET", "POST"], path: str, body: Any = None) -> Any:
        """The `data` of the answer; `path` is what follows `/v1/`.

        Raises `KeyUnavailable` where it does not answer, is sealed, or has too much to do; `Refused` for any other
        status than 200.
        """
        try:
            status, answer = self._exchange(method, path, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise KeyUnavailable(hint="Vault does not answer. An operator checks HEADWATER_HASHICORP_URL.") from error
        if status in _AWAY or status >= _SERVER_ERROR:
            raise KeyUnavailable(hint=f"Vault cannot answer now (status {status}): it may be sealed or a standby.")
        if status != http.client.OK:
            raise Refused(status)
        try:
            return json.loads(answer)["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise KeyUnavailable(hint="What answers at HEADWATER_HASHICORP_URL is no Vault.") from error

    def _exchange(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), self._headers())
            response = connection.getresponse()
            return response.status, response.read(_MOST_BYTES)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host = self._origin.hostname or ""
        if self._origin.scheme == "http":
            return http.client.HTTPConnection(host, self._origin.port, timeout=_SECONDS)
        context = ssl.create_default_context(cafile=self._settings.hashicorp_ca_file)
        return http.client.HTTPSConnection(host, self._origin.port, timeout=_SECONDS, context=context)

    def _headers(self) -> dict[str, str]:
        settings = self._settings
        token = settings.hashicorp_token.get_secret_value() if settings.hashicorp_token else ""
        if settings.hashicorp_token_file is not None:
            token = settings.hashicorp_token_file.read_text().strip()
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        if settings.hashicorp_namespace:
            headers["X-Vault-Namespace"] = settings.hashicorp_namespace
        return headers


def refused(error: Refused, what: str) -> KeyRefused:
    """What to say where Vault does not let us."""
    return KeyRefused(
        hint=f"Vault answers {error.status} to {what}. An operator checks that it exists, and that the token's policy"
        " allows it."
    )
