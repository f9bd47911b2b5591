"""What the scripted source may be told."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorCredentials, ConnectorSpec
from scripted_source import shouting


class ScriptedConfig(ConnectorConfig):
    """`files` JSONL files of `records` each, and `broken` lines that are no JSON.

    `pause_seconds` before each page and each file that is read.
    """

    type: Literal["scripted"] = "scripted"
    host: Annotated[str, TARGET] = "localhost"
    files: int = Field(default=3, ge=0, le=1_000_000)
    records: int = Field(default=10, ge=0)
    broken: int = Field(default=0, ge=0)
    pause_seconds: float = 0
    fail: Literal[
        "none",
        "transient",
        "permanent",
        "fault",
        "hang",
        "hang_opening",
        "die",
        "mumble",
        "shout",
        "shout_ours",
        "shout_panic",
        "surroundings",
    ] = "none"
    fail_until_attempt_file: str = Field(default="", description="a file whose presence makes the failure stop")


class ScriptedCredentials(ConnectorCredentials):
    """One secret. Whoever checks it says it aloud where it ends in `!fault` or `!refuse`, and raises it."""

    password: SecretStr | None = None

    @field_validator("password")
    @classmethod
    def _is_checked_aloud(cls, value: SecretStr | None) -> SecretStr | None:
        said = "" if value is None else value.get_secret_value()
        if said.endswith(("!fault", "!refuse")):
            shouting.log(said)
        if said.endswith("!fault"):
            shouting.fail(said)
        if said.endswith("!refuse"):
            raise ValueError(f"does not like any of {shouting.spellings(said)}")
        return value


SPEC = ConnectorSpec(
    type="scripted",
    title="Scripted",
    description="Makes its files up.",
    config=ScriptedConfig,
    credentials=ScriptedCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
)
