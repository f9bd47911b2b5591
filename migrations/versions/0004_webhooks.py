"""Webhooks: where an organization's jobs are told of when they end, and each delivery until it has arrived."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0004.sql")


def downgrade() -> None:
    _run("0004_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
