"""What was found and brought in, as it goes out."""

from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, Field

FileState = Literal["new", "changed", "imported", "rejected", "missing"]


class CsvRead(BaseModel):
    """How a CSV file was read: as `reading.csv` says, else as it was found out, and kept for its next version."""

    delimiter: str | None = Field(examples=[";"], description="Null for a file of one column.")
    encoding: str = Field(examples=["utf-8"], description="`ascii` if nothing in it has decided yet.")
    header: bool


class FileRead(BaseModel):
    """One file behind a data source. `path` is its full key."""

    path: str = Field(examples=["2026/11/orders.csv"])
    size: int | None
    etag: str | None
    modified_at: AwareDatetime | None
    state: FileState
    item_count: int
    error_count: int
    csv: CsvRead | None = Field(description="How its items were read, if it is CSV.")
    first_seen_at: AwareDatetime
    last_seen_at: AwareDatetime


class ItemRead(BaseModel):
    """One record that a sync brought in. A file without records is one item that points at it."""

    id: str = Field(examples=["item_00000000000041fzzzzzzzzzzz"])
    path: str = Field(examples=["2026/11/orders.csv"])
    record_number: int = Field(ge=1)
    data: Any = Field(description="The record.", examples=[{"order": 1, "total": 9.5}])
    job_id: str
    created_at: AwareDatetime


class RejectRead(BaseModel):
    """One record, or file, that a sync refused, with where and why."""

    id: str = Field(examples=["rej_00000000000041fzzzzzzzzzzz"])
    path: str
    line: int | None = Field(description="Where the record starts, from 1; null where the format has no lines.")
    record_number: int | None
    code: str = Field(examples=["schema_mismatch"])
    pointer: str | None = Field(examples=["/total"])
    message: str
    excerpt: str | None
    job_id: str


class TableRead(BaseModel):
    """One table behind a data source."""

    name: str


FILE_COLUMNS: Final = tuple(FileRead.model_fields)
ITEM_COLUMNS: Final = tuple(ItemRead.model_fields)
REJECT_COLUMNS: Final = tuple(RejectRead.model_fields)
