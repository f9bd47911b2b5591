"""Postgres: engines for the plain lane, connections for the job engine, and the organization of a transaction.

Every transaction that acts for an organization says so first (`set_organization`), so that row-level security can
hold for both lanes alike.
"""

import json as json_module
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString, TypeAlias
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb, set_json_dumps, set_json_loads
from sqlalchemy import DateTime, Engine, create_engine, make_url
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Session, SQLModel

# The Alembic revision that this code needs; a test holds it against migrations/.
REVISION: Final = "0010"

Row: TypeAlias = dict[str, Any]
Connection: TypeAlias = psycopg.Connection[Row]

JSON_TYPE: Final = JSONB(none_as_null=True)
MOMENT: Final = DateTime(timezone=True)

# Keepalives find a peer that is silently gone within about 15 s, from either side: a worker whose machine died in the
# middle of a COPY would otherwise hold its lease's row for hours.
CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
}
SERVER_KEEPALIVES: Final = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def dump_json(value: Any) -> bytes:
    """`value` as JSON; integers of any size, which a user's JSON Schema may hold."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json_module.dumps(value, allow_nan=False).encode()


def _load_json(data: str | bytes) -> Any:
    return orjson.loads(data)


set_json_loads(_load_json)
set_json_dumps(dump_json)


@dataclass(frozen=True)
class Statement:
    """One SQL text in psycopg's `%(name)s` style, with its parameters."""

    text: LiteralString
    parameters: Mapping[str, Any] = field(default_factory=dict)


def json(value: Any) -> Jsonb:
    """`value` as a parameter of type jsonb."""
    return Jsonb(value)


def connect(
    url: str,
    *,
    application: str,
    organization_id: UUID | None = None,
    statement_timeout_seconds: float = 0,
    autocommit: bool = True,
) -> Connection:
    """A connection for the job engine, rows as dicts. The environment's `PG*` never applies: all is in `url`.

    Args:
        application: shown in `pg_stat_activity`.
        organization_id: for whom every statement acts; None is nobody, until a transaction says.
        statement_timeout_seconds: 0 is none. Locks are waited for at most 5 s, an idle transaction lives 30 s.
    """
    options = (
        f"-c statement_timeout={int(statement_timeout_seconds * 1000)} -c lock_timeout=5000"
        f" -c idle_in_transaction_session_timeout=30000 -c TimeZone=UTC {SERVER_KEEPALIVES}"
    )
    if organization_id is not None:
        options += f" -c headwater.organization={organization_id}"
    return psycopg.connect(
        url,
        autocommit=autocommit,
        row_factory=dict_row,
        application_name=application,
        options=options,
        **CONNECT,
    )


def engine(url: str, *, application: str, pool_size: int) -> Engine:
    """The plain lane's engine. A request waits at most 2 s for a connection, 5 s for a statement."""
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_pre_ping=True,
        hide_parameters=True,  # they are what users wrote; an error in the log must not show them
        connect_args={
            **CONNECT,
            "connect_timeout": 2,
            "application_name": application,
            "options": "-c statement_timeout=5000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000"
            f" -c TimeZone=UTC {SERVER_KEEPALIVES}",
        },
    )


SET_ORGANIZATION: Final = "select set_config('headwater.organization', %(acting_for)s, true)"


def set_organization(connection: Connection, organization_id: UUID) -> None:
    """Say for whom the open transaction acts: row-level security shows and takes that organization's rows alone."""
    connection.execute(SET_ORGANIZATION, {"acting_for": str(organization_id)})


@contextmanager
def session(engine: Engine, organization_id: UUID) -> Iterator[Session]:
    """A transaction of the plain lane for one organization: commits at the end of the block, or rolls back."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.connection().exec_driver_sql(SET_ORGANIZATION, {"acting_for": str(organization_id)})
        yield session


def run(connection: Connection, statement: Statement) -> psycopg.Cursor[Row]:
    """Execute `statement` on `connection`."""
    return connection.execute(statement.text, statement.parameters)


def run_in(session: Session, statement: Statement) -> list[Row]:
    """Execute `statement` in the transaction of `session`; the rows it returned, as dicts."""
    result = session.connection().exec_driver_sql(statement.text, dict(statement.parameters))
    return [dict(row._mapping) for row in result] if result.returns_rows else []
