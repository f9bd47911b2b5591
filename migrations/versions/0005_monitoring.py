"""What monitoring reads: gauges, and tallies of what has ended."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0005.sql")


def downgrade() -> None:
    _run("0005_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
