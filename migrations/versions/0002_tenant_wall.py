"""The wall between tenants: service roles, row-level security, members, keys, the audit chain, limits."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0002.sql")


def downgrade() -> None:
    _run("0002_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
