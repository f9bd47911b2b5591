"""Data sources on the wire."""

import codecs
import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, field_validator

from headwater_api.connectors.documented import ANY_CONFIG, ANY_CREDENTIALS, DocumentedAs
from headwater_api.wire import DataSourceId, EventId, JobId, MemberId, Moment, Person, ProjectId

Status = Literal["untested", "ready", "failing"]

_PERCENTAGE: Final = re.compile(r"(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%")


def _without_doubles(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Name: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Description: TypeAlias = Annotated[str, StringConstraints(max_length=2000)]
Env: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Tag: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Tags: TypeAlias = Annotated[list[Tag], Field(max_length=50), AfterValidator(_without_doubles)]
Glob: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Globs: TypeAlias = Annotated[list[Glob], Field(max_length=100)]

_CLOSED: Final = ConfigDict(extra="forbid")


class Validation(BaseModel):
    """How records are held against a schema, and what happens to those that do not fit."""

    model_config = _CLOSED

    mode: Literal["strict", "lenient"] = Field(
        default="lenient",
        description="`strict`: one invalid record fails the sync. `lenient`: valid ones land, others become rejects.",
    )
    record_schema: Annotated[Any, WithJsonSchema({"type": ["object", "boolean"], "title": "Schema"})] = Field(
        default=None,
        alias="schema",
        description="A JSON Schema for each record, at most 256 KiB, without references to elsewhere. Replaced whole.",
        examples=[{"type": "object", "required": ["id"]}],
    )
    max_errors: Annotated[
        Any,
        WithJsonSchema(
            {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{_PERCENTAGE.pattern}$"}]}
        ),
    ] = Field(default=None, description="A sync with more rejects than this fails: a count, or a part as `5%`.")

    @field_validator("max_errors")
    @classmethod
    def _is_count_or_part(cls, value: Any) -> Any:
        is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
        if value is None or is_count or (isinstance(value, str) and _PERCENTAGE.fullmatch(value)):
            return value
        raise ValueError("must be a count from 0, or a percentage such as 5%")

    def stored(self) -> dict[str, Any]:
        """As the version keeps it: `mode`, and what was set."""
        return {"mode": self.mode} | self.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)


# What a file's extension can say, and `plain` for files that are not read.
_FORMAT: Final = r"^(?:(?:csv|tsv|json|jsonl|ndjson|parquet)(?:\.(?:gz|bz2|zst|zstd|zip))?|zip|plain)$"


class CsvReading(BaseModel):
    """How CSV files are read; what is not set is found out from each file."""

    model_config = _CLOSED

    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = Field(
        default=None, examples=[";"]
    )
    encoding: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = Field(
        default=None, examples=["utf-8"]
    )
    header: bool | None = Field(default=None, description="Whether the first line names the columns.")

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str | None) -> str | None:
        if value is not None and value in "\r\n\"'\ufeff":
            raise ValueError("must be one character that is no quote and ends no line")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and not _is_text_encoding(value):
            raise ValueError("must be an encoding of text such as utf-8, cp1252 or shift_jis")
        return value


def _is_text_encoding(name: str) -> bool:
    try:
        # `_is_text_encoding` is false for codecs such as zlib and rot13.
        return bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False


class Reading(BaseModel):
    """Which files are read, and how."""

    model_config = _CLOSED

    include: Globs = Field(
        default_factory=list, description="Only paths that match one of these.", examples=[["*.csv"]]
    )
    exclude: Globs = Field(default_factory=list, description="No path that matches one of these.")
    on_missing: Literal["keep", "mark", "delete"] = Field(
        default="mark", description="What becomes of the items of files that vanished."
    )
    format: Annotated[str, StringConstraints(pattern=_FORMAT)] | None = Field(
        default=None,
        description="The format of every file, with its compression or without; by its extension if not set.",
        examples=["csv", "jsonl.zst"],
    )
    csv: CsvReading | None = None

    def stored(self) -> dict[str, Any]:
        """As the version keeps it: what was set."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


class DataSourceCreate(BaseModel):
    """A new data source."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "Orders",
                    "type": "s3",
                    "config": {"bucket": "my-bucket", "region": "eu-central-1", "prefix": "orders/"},
                    "credentials": {"access_key_id": "AKIA...", "secret_access_key": "..."},
                }
            ]
        },
    )

    name: Name = Field(description="Unique in its project and `env`.")
    type: str = Field(max_length=64, examples=["s3"], description="One of `/data-source-types`; it never changes.")
    config: Annotated[dict[str, Any], ANY_CONFIG] = Field(description="Of the type; `type` in it may be omitted.")
    env: Env = "production"
    credentials: Annotated[dict[str, Any], ANY_CREDENTIALS] | None = Field(
        default=None, description="Sealed at once, never shown again."
    )
    validation: Validation = Field(default_factory=Validation)
    reading: Reading = Field(default_factory=Reading)
    description: Description = ""
    tags: Tags = Field(default_factory=list)
    owner_id: MemberId | None = None
    is_active: bool = Field(default=True, description="`false` refuses new jobs.")


class DataSourceUpdate(BaseModel):
    """A JSON Merge Patch (RFC 7396): what is not sent stays, `null` sets back to the default."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"config": {"prefix": "orders/2026/"}}]},
    )

    name: Name = Field(default_factory=str)
    type: str = Field(default_factory=str, max_length=64, description="May be sent, and must be what it is.")
    config: dict[str, Any] | None = Field(
        default=None,
        description="Members to change. Pointing the source elsewhere clears credentials that are not sent with it.",
    )
    env: Env | None = None
    credentials: dict[str, Any] | None = Field(default=None, description="Members to replace; `null` clears.")
    validation: Annotated[dict[str, Any], DocumentedAs(Validation)] | None = None
    reading: Annotated[dict[str, Any], DocumentedAs(Reading)] | None = None
    description: Description | None = None
    tags: Tags | None = None
    owner_id: MemberId | None = None
    is_active: bool | None = None

    def settings(self) -> dict[str, Any]:
        """What was sent of the source's own columns, null as the default."""
        sent = {name: getattr(self, name) for name in self.model_fields_set & _DEFAULTS.keys()}
        return {name: _DEFAULTS[name] if value is None else value for name, value in sent.items()}


_DEFAULTS: Final[dict[str, Any]] = {
    "name": "",
    "description": "",
    "env": "production",
    "tags": [],
    "owner_id": None,
    "is_active": True,
}


class CredentialField(BaseModel):
    """Whether a secret field is set; never its value. `reference` is where it is kept, if not here."""

    set: bool
    updated_at: Moment | None
    reference: str | None = None


class LastTest(BaseModel):
    """The newest connection test that counted."""

    success: bool
    job_id: JobId
    at: Moment


class DataSourceRead(BaseModel):
    """A registered place where data lives."""

    id: DataSourceId
    project_id: ProjectId
    name: str
    description: str
    env: str
    tags: list[str]
    owner_id: MemberId | None
    type: str
    config: Annotated[dict[str, Any], ANY_CONFIG]
    validation: Annotated[dict[str, Any], DocumentedAs(Validation)]
    reading: Annotated[dict[str, Any], DocumentedAs(Reading)]
    is_active: bool
    status: Status = Field(
        description="`ready`: the last test passed. `failing`: it did not, or a sync could not sign in. `untested`:"
        " never tested, or target or credentials changed since."
    )
    status_reason: str | None
    version: int = Field(description="Counts the changes of config, validation and reading.")
    credentials: dict[str, CredentialField] = Field(
        examples=[{"access_key_id": {"set": True, "updated_at": "2026-01-02T03:04:05.678901Z", "reference": None}}]
    )
    item_count: int
    error_count: int
    last_sync_at: Moment | None
    last_test: LastTest | None
    created_by: Person | None
    updated_by: Person | None
    created_at: Moment
    updated_at: Moment


class EventRead(BaseModel):
    """One line in a data source's history."""

    id: EventId
    act: str = Field(examples=["data_source.updated"])
    actor: Person | None = Field(description="null: Headwater itself.")
    job_id: JobId | None
    details: dict[str, Any] = Field(examples=[{"fields": ["config.prefix"], "version": 2}])
    created_at: Moment
