"""Azure Blob Storage."""

import base64
import binascii
import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from headwater.connectors.origins import check_endpoint_url
from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorCredentials, ConnectorSpec

_SAS: Final = re.compile(r"[A-Za-z0-9_.~%&=:+/,!*'()-]+")
# sv, sig, sp, skoid ... and rscc to rsct: none is as long as what asks for something, such as `comp` or `restype`.
_SAS_FIELD: Final = re.compile(r"s[a-z]{1,6}|rsc[cdelt]")
# https://<account>.blob.core.windows.net and the clouds beside it.
_AZURES_HOST: Final = re.compile(r"(?P<account>[^.]+)\.blob\.core\..+")
_AZURES_ORIGIN: Final = re.compile(
    r"https://[a-z0-9]+(?:\.blob\.core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net|cloudapi\.de)"
    r"|\.z[0-9]{1,2}\.blob\.storage\.azure\.net)"
)


class AzureBlobConfig(ConnectorConfig):
    """A container, or a prefix in it."""

    type: Literal["azure_blob"] = "azure_blob"
    container: Annotated[str, TARGET] = Field(
        pattern=r"^(\$root|\$web|[a-z0-9](-?[a-z0-9]){2,62})$", max_length=63, examples=["my-container"]
    )
    account: Annotated[str, TARGET] = Field(
        pattern=r"^[a-z0-9]{3,24}$", description="The storage account's name.", examples=["mystorage"]
    )
    prefix: str = Field(default="", max_length=1024, description="Only names that start with this are seen.")
    endpoint_url: Annotated[str | None, TARGET] = Field(
        default=None,
        max_length=512,
        description="Origin of the blob service in another cloud (https://account.blob.core.chinacloudapi.cn) or of "
        "an emulator; omit it for Azure's public cloud.",
    )
    use_managed_identity: Annotated[bool, TARGET] = Field(
        default=False,
        description="Use the worker's own identity instead of a key, where the operator allows it; with Azure's own "
        "endpoints only.",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_origin(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint_url(value)

    @model_validator(mode="after")
    def _endpoint_is_the_accounts(self) -> Self:
        found = _AZURES_HOST.fullmatch(urlsplit(self.endpoint_url or "").hostname or "")
        if found and found["account"] != self.account:
            raise ValueError("`endpoint_url` is that of another account than `account`")
        return self

    @model_validator(mode="after")
    def _own_identity_is_for_azure(self) -> Self:
        # Who receives the worker's token can use it.
        if self.use_managed_identity and self.endpoint_url and not _AZURES_ORIGIN.fullmatch(self.endpoint_url):
            raise ValueError(
                "`use_managed_identity` goes with Azure's own endpoints, over https: give a key or a signature"
            )
        return self

    @property
    def account_url(self) -> str:
        """Where the account's blob service is: its own host, or a path of its name at an emulator."""
        if self.endpoint_url is None:
            return f"https://{self.account}.blob.core.windows.net"
        host = urlsplit(self.endpoint_url).hostname or ""
        return self.endpoint_url if host.startswith(f"{self.account}.") else f"{self.endpoint_url}/{self.account}"


class AzureBlobCredentials(ConnectorCredentials):
    """A key of the account, or a shared access signature; one of them."""

    account_key: SecretStr | None = Field(default=None, min_length=1, max_length=512)
    sas_token: SecretStr | None = Field(
        default=None, min_length=1, max_length=4096, description="With or without its `?`; needs the rights r and l."
    )

    @field_validator("account_key")
    @classmethod
    def _is_base64(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            base64.b64decode(value.get_secret_value(), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("must be base64, as the portal shows it") from None
        return value

    @field_validator("sas_token")
    @classmethod
    def _is_a_query(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().removeprefix("?")
        if not _SAS.fullmatch(text) or not {"sv", "sig"} <= parse_qs(text).keys():
            raise ValueError("must be a shared access signature such as sv=...&sp=rl&se=...&sig=...")
        if not all(_SAS_FIELD.fullmatch(name) for name in parse_qs(text, keep_blank_values=True)):
            raise ValueError("must hold the fields of a signature and nothing else that a URL can ask for")
        return SecretStr(text)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.account_key is not None and self.sas_token is not None:
            raise ValueError("give `account_key` or `sas_token`, not both")
        return self


def _missing(config: AzureBlobConfig, set_fields: frozenset[str]) -> tuple[str, ...]:
    if config.use_managed_identity or set_fields & {"account_key", "sas_token"}:
        return ()
    return ("account_key or sas_token",)


SPEC: Final = ConnectorSpec(
    type="azure_blob",
    title="Azure Blob Storage",
    description="A container in Azure Blob Storage.",
    config=AzureBlobConfig,
    credentials=AzureBlobCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
    missing_credentials=_missing,
)
