"""Files of the machine that the worker runs on."""

import posixpath
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorSpec, NoCredentials


class LocalFilesConfig(ConnectorConfig):
    """A folder or a file, under a root that the operator allows."""

    type: Literal["local_files"] = "local_files"
    path: Annotated[str, TARGET] = Field(
        min_length=1,
        max_length=4096,
        description="An absolute path on the workers' machine.",
        examples=["/data/orders"],
    )
    format: Literal["csv", "json", "jsonl", "parquet"] | None = Field(
        default=None,
        description="How all files are read, whatever their names say; `reading.format` wins over it.",
    )

    @field_validator("path")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("must be an absolute path, such as /data/orders")
        if any(ord(character) < 32 or 0xD800 <= ord(character) <= 0xDFFF for character in value):
            raise ValueError("must not hold control characters")
        if ".." in value.split("/"):
            raise ValueError("must not hold `..`")
        return "/" + posixpath.normpath(value).lstrip("/")


SPEC: Final = ConnectorSpec(
    type="local_files",
    title="Local files",
    description="A folder or a file of the machine that the workers run on, where the operator allows it.",
    config=LocalFilesConfig,
    credentials=NoCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
)
