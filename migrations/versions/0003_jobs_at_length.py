"""Jobs over the long run: caps for sources, an organization's longest deadline, reasons for waiting, pruning."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0003.sql")


def downgrade() -> None:
    _run("0003_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
