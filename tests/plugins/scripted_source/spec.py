"""What the scripted source may be told."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorCredentials, ConnectorSpec


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
        "die",
        "mumble",
        "shout",
        "shout_ours",
        "shout_panic",
        "surroundings",
    ] = "none"
    fail_until_attempt_file: str = Field(default="", description="a file whose presence makes the failure stop")


class ScriptedCredentials(ConnectorCredentials):
    """One secret."""

    password: SecretStr | None = None


SPEC = ConnectorSpec(
    type="scripted",
    title="Scripted",
    description="Makes its files up.",
    config=ScriptedConfig,
    credentials=ScriptedCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
)
