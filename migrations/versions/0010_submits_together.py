"""Submits that come together are one set of rows, counted and answered once; lists of data sources read pages."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0010.sql")


def downgrade() -> None:
    _run("0010_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
