"""The worker's own role in AWS: that of its service account in EKS, of its container, or of the machine.

Only where the operator allows it. Which of them it is, is said by the variables that the platform set; they are given
by whoever calls, as they are no longer in the environment.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from botocore.credentials import (
    AssumeRoleWithWebIdentityCredentialFetcher,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import CredentialRetrievalError, MetadataRetrievalError
from botocore.utils import ContainerMetadataFetcher

from headwater import aws
from headwater_worker.connectors import s3_session
from headwater_worker.connectors.s3_session import Settings
from headwater_worker.egress import second_line

# What a relative address is relative to.
_CONTAINER_URL: Final = "http://169.254.170.2"

_WEB_IDENTITY: Final = frozenset({"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"})


def ambient(variables: Mapping[str, str], settings: Settings) -> Credentials | None:
    """The worker's own credentials, fetched again before they expire; None if it has no role.

    Those of a service account and of a container are fetched on first use. Raises what botocore raises.
    """
    if variables.keys() >= _WEB_IDENTITY:
        return _of_service_account(variables, settings)
    if url := _container_url(variables):
        return _of_container(url, variables)
    found: Credentials | None = aws.instance_role().load()
    return found


def endpoint(variables: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port of what is asked past the job's proxy. STS is asked through it, like the store."""
    if variables.keys() >= _WEB_IDENTITY:
        return None
    return second_line.endpoint(_container_url(variables) or aws.INSTANCE_METADATA_URL)


def _of_service_account(variables: Mapping[str, str], settings: Settings) -> Credentials:
    """EKS: the cluster's token, which changes every now and then, is exchanged at STS."""
    nearest = dataclasses.replace(settings, region=variables.get("AWS_REGION", settings.region))

    def create(_service: str, **_options: object) -> Any:
        return s3_session.client("sts", None, nearest)

    fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
        create,
        lambda: _read(variables["AWS_WEB_IDENTITY_TOKEN_FILE"]),
        variables["AWS_ROLE_ARN"],
        extra_args={"RoleSessionName": s3_session.ROLE_SESSION},
    )
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role-with-web-identity")


def _of_container(url: str, variables: Mapping[str, str]) -> Credentials:
    """ECS, and EKS with its pod identity agent."""

    def fetch() -> dict[str, Any]:
        try:
            told = ContainerMetadataFetcher().retrieve_full_uri(url, headers=_authorization(variables))
            return {
                "access_key": told["AccessKeyId"],
                "secret_key": told["SecretAccessKey"],
                "token": told["Token"],
                "expiry_time": told["Expiration"],
            }
        except (MetadataRetrievalError, KeyError, TypeError, ValueError) as error:
            raise _not_had() from error

    return DeferredRefreshableCredentials(fetch, "container-role")


def _container_url(variables: Mapping[str, str]) -> str | None:
    relative = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    return _CONTAINER_URL + relative if relative else variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")


def _authorization(variables: Mapping[str, str]) -> dict[str, str]:
    path = variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    token = _read(path) if path else variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    return {"Authorization": token} if token else {}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise _not_had() from error


def _not_had() -> CredentialRetrievalError:
    return CredentialRetrievalError(provider="own role", error_msg="the platform does not give them")
