"""Amazon S3 and stores that speak its protocol."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from headwater.connectors import headers
from headwater.connectors.origins import check_endpoint_url
from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorCredentials, ConnectorSpec

_AWS_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_AWS_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# A region's own, and what a private network has instead: https://bucket.vpce-<id>.s3.<region>.vpce.amazonaws.com.
_AMAZONS_ORIGIN: Final = re.compile(
    r"https://(?:s3(?:-fips)?(?:\.dualstack)?\.[a-z0-9-]+|bucket\.vpce-[a-z0-9-]+\.s3\.[a-z0-9-]+\.vpce)"
    r"\.amazonaws\.com(?:\.cn)?"
)
_ROLE_ARN: Final = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$"


class S3Config(ConnectorConfig):
    """A bucket, or a prefix in it."""

    type: Literal["s3"] = "s3"
    bucket: Annotated[str, TARGET] = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$", examples=["my-bucket"]
    )
    region: Annotated[str, TARGET] = Field(pattern=r"^[a-z0-9-]{1,40}$", examples=["eu-central-1"])
    prefix: str = Field(default="", max_length=1024, description="Only keys that start with this are seen.")
    endpoint_url: Annotated[str | None, TARGET] = Field(
        default=None,
        max_length=512,
        description="Origin of an S3-compatible store; omit it for Amazon's own.",
    )
    use_iam_role: Annotated[bool, TARGET] = Field(
        default=False,
        description="Use the worker's own role instead of keys, where the operator allows it; with Amazon's own "
        "endpoints only.",
    )
    role_arn: Annotated[str | None, TARGET] = Field(default=None, pattern=_ROLE_ARN, description="A role to assume.")
    external_id: str | None = Field(
        default=None, min_length=2, max_length=1224, pattern=r"^[A-Za-z0-9_+=,.@:/-]+$", description="For `role_arn`."
    )

    @property
    def is_amazons(self) -> bool:
        """Whether the bucket is asked for at Amazon's own endpoints."""
        return self.endpoint_url is None or _AMAZONS_ORIGIN.fullmatch(self.endpoint_url) is not None

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_origin(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint_url(value)

    @model_validator(mode="after")
    def _names_are_amazons(self) -> Self:
        if self.endpoint_url is None and not _AWS_REGION.fullmatch(self.region):
            raise ValueError("`region` must be one of Amazon's, such as eu-central-1, unless `endpoint_url` is set")
        if self.endpoint_url is None and not _AWS_BUCKET.fullmatch(self.bucket):
            raise ValueError("`bucket` must be 3 to 63 lower-case letters, digits, dots or hyphens")
        if self.use_iam_role and not self.is_amazons:
            raise ValueError("`use_iam_role` goes with Amazon's own endpoints: give keys, or leave `endpoint_url` out")
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("`external_id` goes with `role_arn`")
        return self


class S3Credentials(ConnectorCredentials):
    """An access key; `session_token` for temporary ones."""

    access_key_id: SecretStr | None = Field(default=None, min_length=1, max_length=128)
    secret_access_key: SecretStr | None = Field(default=None, min_length=1, max_length=1024)
    session_token: SecretStr | None = Field(default=None, min_length=1, max_length=8192)

    _fit_a_header = field_validator("access_key_id", "session_token")(headers.check_secret)
    # It only signs, and stores other than Amazon's have all kinds; a line end is one of the clipboard's.
    _is_one_line = field_validator("secret_access_key")(headers.check_no_control)


def _missing(config: S3Config, set_fields: frozenset[str]) -> tuple[str, ...]:
    if config.use_iam_role:
        return ()
    return tuple(name for name in ("access_key_id", "secret_access_key") if name not in set_fields)


SPEC: Final = ConnectorSpec(
    type="s3",
    title="Amazon S3",
    description="A bucket in Amazon S3, or in a store that speaks its protocol.",
    config=S3Config,
    credentials=S3Credentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
    missing_credentials=_missing,
)
