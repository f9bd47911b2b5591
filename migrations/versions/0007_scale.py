"""Lists that read no more of a full database than they show: indexes for their filters, statistics for the planner."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0007.sql")


def downgrade() -> None:
    _run("0007_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
