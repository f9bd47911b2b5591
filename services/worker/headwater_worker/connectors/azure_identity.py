"""The worker's own identity in Azure, asked for where the machine, App Service or Kubernetes keeps it.

Only where the operator allows it. Which of them it is, is said by the variables that the platform set; they are given
by whoever calls, as they are no longer in the environment.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from azure.core.credentials import AccessToken

from headwater_worker.connectors import azure_errors, platform
from headwater_worker.connectors.platform import Request
from headwater_worker.egress import second_line

_RESOURCE: Final = "https://storage.azure.com/"
_MACHINE_URL: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
_LOGIN_URL: Final = "https://login.microsoftonline.com"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SPARE_SECONDS: Final = 300.0
_FEDERATED: Final = frozenset({"AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID"})
_APP_SERVICE: Final = frozenset({"IDENTITY_ENDPOINT", "IDENTITY_HEADER"})


class ManagedIdentity:
    """A credential for Azure's client, of the identity that `variables` tell of.

    Raises `Permanent` `missing_credentials` when the worker has none.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._token = AccessToken("", 0)

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """A token for storage, kept until five minutes before its end."""
        if self._token.expires_on - time.time() < _SPARE_SECONDS:
            self._token = _ask(self._variables)
        return self._token


def endpoint(variables: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of what will be asked."""
    return second_line.endpoint(_url(variables))


def _ask(variables: Mapping[str, str]) -> AccessToken:
    try:
        token = platform.ask(_request(variables))
    except (LookupError, OSError) as error:
        raise azure_errors.no_identity() from error
    return AccessToken(token.text, int(token.ends_at))


def _url(variables: Mapping[str, str]) -> str:
    if variables.keys() >= _FEDERATED:
        authority = variables.get("AZURE_AUTHORITY_HOST", _LOGIN_URL).rstrip("/")
        return f"{authority}/{quote(variables['AZURE_TENANT_ID'])}/oauth2/v2.0/token"
    return variables["IDENTITY_ENDPOINT"] if variables.keys() >= _APP_SERVICE else _MACHINE_URL


def _request(variables: Mapping[str, str]) -> Request:
    url = _url(variables)
    if variables.keys() >= _FEDERATED:
        return Request(url, _exchange(variables), method="POST")
    if variables.keys() >= _APP_SERVICE:
        return Request(url, _selected("2019-08-01", variables), {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]})
    return Request(url, _selected("2018-02-01", variables), {"Metadata": "true"})


def _exchange(variables: Mapping[str, str]) -> dict[str, str]:
    """Kubernetes: its token, which changes every now and then, is exchanged for Azure's."""
    return {
        "client_id": variables["AZURE_CLIENT_ID"],
        "client_assertion": Path(variables["AZURE_FEDERATED_TOKEN_FILE"]).read_text(encoding="utf-8").strip(),
        "client_assertion_type": _ASSERTION,
        "grant_type": "client_credentials",
        "scope": f"{_RESOURCE}.default",
    }


def _selected(version: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The query of the machine's or App Service's endpoint; a client id selects one of several identities."""
    client_id = variables.get("AZURE_CLIENT_ID")
    return {"api-version": version, "resource": _RESOURCE} | ({"client_id": client_id} if client_id else {})
