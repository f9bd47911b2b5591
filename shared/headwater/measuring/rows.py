"""Tables of monitoring. They are of no organization."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, Double, Text
from sqlmodel import Field, SQLModel

from headwater.db import JSON_TYPE, MOMENT


class Measurement(SQLModel, table=True):
    """One row: the gauges as a scheduler last saw them, [{name, labels, value}]. Its lock is whose turn it is."""

    __tablename__ = "measurement"
    __table_args__ = (CheckConstraint("id", name="id"),)

    id: bool = Field(default=True, primary_key=True, sa_type=Boolean)
    measured_at: datetime | None = Field(default=None, sa_type=MOMENT)
    gauges: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSON_TYPE, sa_column_kwargs={"server_default": "[]"}
    )


class Tally(SQLModel, table=True):
    """How often something has ended so far, or a sum over it. It only grows."""

    __tablename__ = "tally"

    name: str = Field(primary_key=True, sa_type=Text)
    labels: dict[str, str] = Field(primary_key=True, sa_type=JSON_TYPE)
    value: float = Field(sa_type=Double)
