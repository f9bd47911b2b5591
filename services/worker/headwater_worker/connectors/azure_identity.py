"""The worker's own identity in Azure, asked for where the machine, App Service or Kubernetes keeps it.

Only where the operator allows it. These requests do not go through the job's proxy: they are between the worker and
its own platform, and no config of a customer has a word in them.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import requests
from azure.core.credentials import AccessToken

from headwater_worker.connectors import azure_errors

METADATA_SERVICE: Final = ("169.254.169.254", 80)

_RESOURCE: Final = "https://storage.azure.com/"
_MACHINE_URL: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
_LOGIN_URL: Final = "https://login.microsoftonline.com"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TIMEOUT: Final = (2.0, 6.0)
_SPARE_SECONDS: Final = 300.0


class _Request(NamedTuple):
    method: str
    url: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]


class ManagedIdentity:
    """A credential for Azure's client. Raises `Permanent` `missing_credentials` when the worker has no identity."""

    def __init__(self) -> None:
        self._token = AccessToken("", 0)

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """A token for storage, kept until five minutes before its end."""
        if self._token.expires_on - time.time() < _SPARE_SECONDS:
            self._token = _ask(_request())
        return self._token


def endpoint() -> tuple[str, int]:
    """Host and port of what will be asked."""
    parts = urlsplit(_request().url)
    return parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]


def _request() -> _Request:
    if {"AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID"} <= os.environ.keys():
        return _federated()
    if {"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} <= os.environ.keys():
        return _of_app_service()
    return _Request("GET", _MACHINE_URL, _selected("2018-02-01"), {"Metadata": "true"})


def _federated() -> _Request:
    """Kubernetes: its token is exchanged for Azure's."""
    authority = os.environ.get("AZURE_AUTHORITY_HOST", _LOGIN_URL).rstrip("/")
    form = {
        "client_id": os.environ["AZURE_CLIENT_ID"],
        "client_assertion": Path(os.environ["AZURE_FEDERATED_TOKEN_FILE"]).read_text(encoding="utf-8").strip(),
        "client_assertion_type": _ASSERTION,
        "grant_type": "client_credentials",
        "scope": f"{_RESOURCE}.default",
    }
    return _Request("POST", f"{authority}/{quote(os.environ['AZURE_TENANT_ID'])}/oauth2/v2.0/token", form, {})


def _of_app_service() -> _Request:
    headers = {"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]}
    return _Request("GET", os.environ["IDENTITY_ENDPOINT"], _selected("2019-08-01"), headers)


def _selected(version: str) -> dict[str, str]:
    """The query of the machine's or App Service's endpoint; a client id selects one of several identities."""
    client_id = os.environ.get("AZURE_CLIENT_ID")
    return {"api-version": version, "resource": _RESOURCE} | ({"client_id": client_id} if client_id else {})


def _ask(request: _Request) -> AccessToken:
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                timeout=_TIMEOUT,
                allow_redirects=False,
                params=dict(request.parameters) if request.method == "GET" else None,
                data=dict(request.parameters) if request.method == "POST" else None,
            )
        content = answer.json()
        # The machine and App Service say when it ends, the exchange how long it lives.
        ends_at = int(content.get("expires_on") or time.time() + int(content["expires_in"]))
        return AccessToken(str(content["access_token"]), ends_at)
    except (requests.RequestException, KeyError, TypeError, ValueError, AttributeError) as error:
        raise azure_errors.no_identity() from error
