"""Uploads on the wire."""

from pydantic import BaseModel, Field

from headwater_api.wire import Moment


class UploadRead(BaseModel):
    """An uploaded file."""

    name: str = Field(examples=["orders.csv"])
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="Of its bytes, in hexadecimal.")
    content_type: str = Field(description="What its name stands for.", examples=["text/csv"])
    etag: str = Field(description="Changes with the content alone.")
    created_at: Moment
    updated_at: Moment


class UploadProgress(BaseModel):
    """A file of which a part is there."""

    name: str
    received: int = Field(description="Bytes that are kept: the next part begins here.")
    total: int = Field(description="Bytes that the file will have.")
