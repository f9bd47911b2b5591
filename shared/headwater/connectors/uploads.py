"""What every type that takes uploads lets users say about them."""

import re
from typing import Final

from pydantic import Field, field_validator

from headwater.connectors.spec import ConnectorConfig

MEBIBYTE: Final = 1024 * 1024
LARGEST_FILE_MB: Final = 100_000
_EXTENSION: Final = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")


class UploadsConfig(ConnectorConfig):
    """The config of a type with `Capability.UPLOADS`."""

    allowed_extensions: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="What names may end in, without the dot and in any case, such as `csv` or `csv.gz`. Empty: any.",
        examples=[["csv", "jsonl"]],
    )
    max_file_size_mb: int = Field(
        default=100, ge=1, le=LARGEST_FILE_MB, description="The largest file, in MiB (1,048,576 bytes)."
    )

    @field_validator("allowed_extensions")
    @classmethod
    def _are_extensions(cls, value: list[str]) -> list[str]:
        extensions = [extension.lower() for extension in value]
        for extension in extensions:
            if len(extension) > 32 or not _EXTENSION.fullmatch(extension):
                raise ValueError("must be letters and digits without a leading dot, such as csv")
        return list(dict.fromkeys(extensions))

    @property
    def largest_bytes(self) -> int:
        """The largest file, in bytes."""
        return self.max_file_size_mb * MEBIBYTE

    def allows(self, name: str) -> bool:
        """Whether a file may have this name."""
        lowered = name.lower()
        return not self.allowed_extensions or any(
            lowered.endswith(f".{extension}") for extension in self.allowed_extensions
        )
