"""AWS KMS as a key provider: the master key never leaves it. Source: its API reference."""

import base64
import functools
import ssl
from typing import Any, Final, Literal

from headwater import aws
from headwater.errors import CannotUnseal, KeyRefused, KeyUnavailable
from headwater.settings import KmsSettings
from headwater.vault.providers import Wrapped

_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 5
_ATTEMPTS: Final = 2
_NOT_OURS: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_AWAY: Final = frozenset(
    {
        "ThrottlingException", "LimitExceededException", "RequestLimitExceeded", "KMSInternalException",
        "DependencyTimeoutException", "KeyUnavailableException", "ServiceUnavailable", "InternalFailure",
    }
)  # fmt: skip
_SERVER_ERROR: Final = 500


class AwsKms:
    """Wraps with `HEADWATER_KMS_KEY`. What is bound stands in the encryption context, which CloudTrail shows too."""

    name = "aws_kms"

    def __init__(self, settings: KmsSettings) -> None:
        aws.require("HEADWATER_KMS_KEY")
        self._settings = settings

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        answer = self._call("encrypt", KeyId=self._key, Plaintext=key, EncryptionContext=_context(context))
        return Wrapped(self.name, answer["KeyId"], answer["CiphertextBlob"])

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        # The key is named, so that no other one of the account opens what somebody put there.
        key: bytes = self._call(
            "decrypt",
            KeyId=wrapped.master_key,
            CiphertextBlob=wrapped.blob,
            EncryptionContext=_context(context),
        )["Plaintext"]
        return key

    def rewrap(self, wrapped: Wrapped, context: bytes) -> Wrapped:
        answer = self._call(
            "re_encrypt",
            CiphertextBlob=wrapped.blob,
            SourceKeyId=wrapped.master_key,
            SourceEncryptionContext=_context(context),
            DestinationKeyId=self._key,
            DestinationEncryptionContext=_context(context),
        )
        return Wrapped(self.name, answer["KeyId"], answer["CiphertextBlob"])

    @property
    def _key(self) -> str:
        assert self._settings.kms_key is not None, "the settings are checked as a whole"
        return self._settings.kms_key

    def _call(self, operation: Literal["encrypt", "decrypt", "re_encrypt"], **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415

        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            raise _translated(error.response) from error
        except (BotoCoreError, HTTPClientError) as error:
            raise KeyUnavailable(
                hint="AWS KMS does not answer, or this machine has no credentials for it. An operator checks"
                " HEADWATER_KMS_REGION, HEADWATER_KMS_ENDPOINT_URL and the network."
            ) from error

    @functools.cached_property
    def _client(self) -> Any:
        from botocore.config import Config  # noqa: PLC0415

        settings = self._settings
        secret = settings.kms_secret_access_key
        return aws.session(with_role=secret is None).create_client(
            "kms",
            region_name=settings.kms_region,
            endpoint_url=settings.kms_endpoint_url,
            aws_access_key_id=settings.kms_access_key_id,
            aws_secret_access_key=None if secret is None else secret.get_secret_value(),
            verify=ssl.get_default_verify_paths().cafile or True,
            config=Config(
                signature_version="v4",
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                proxies={},
                ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # the stubs lag behind
            ),
        )


def _context(context: bytes) -> dict[str, str]:
    return {"headwater": base64.b64encode(context).decode()}


def _translated(response: Any) -> Exception:
    code = response.get("Error", {}).get("Code", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _NOT_OURS:
        return CannotUnseal()
    if code in _AWAY or status >= _SERVER_ERROR:
        return KeyUnavailable(hint=f"AWS KMS cannot answer now ({code or status}).")
    return KeyRefused(
        hint=f"AWS KMS says {code or status}. An operator checks that the key HEADWATER_KMS_KEY exists, is enabled, and"
        " lets these credentials Encrypt, Decrypt and ReEncrypt."
    )
