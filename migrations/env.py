"""Alembic's environment: under an advisory lock, with lock and statement timeouts, one transaction a revision."""

import os

import sqlalchemy as sa
from alembic import context

from headwater import tables
from headwater.audit.rows import TransactionId

_LOCK = 0x68_77_6D_67  # "hwmg": one migration at a time per database


def _url() -> sa.URL:
    url = context.config.attributes.get("url") or os.environ["HEADWATER_DATABASE_URL"]
    return sa.make_url(url).set(drivername="postgresql+psycopg")


def _is_a_rows_table(name: str | None, kind: str, _parents: object) -> bool:
    """What the API reads items and rejects through holds no rows of its own, and is no row in the code."""
    return kind != "table" or name not in ("readable_item", "readable_reject")


def run() -> None:
    """Migrate, or compare, the database."""
    engine = sa.create_engine(_url(), poolclass=sa.NullPool)
    # SQLAlchemy does not know the type, and comparing needs it.
    engine.dialect.ischema_names["xid8"] = TransactionId  # type: ignore[attr-defined]
    with engine.connect() as connection:
        connection.execute(sa.text("set statement_timeout = 0"))
        # Waiting for another migration is fine; waiting for a lock on a table in use is not.
        connection.execute(sa.text("set lock_timeout = '5min'"))
        connection.execute(sa.text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.execute(sa.text("set lock_timeout = '1s'; set statement_timeout = '60s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=tables.METADATA,
            transaction_per_migration=True,
            compare_type=True,
            include_name=_is_a_rows_table,
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(sa.text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()
    engine.dispose()


run()
