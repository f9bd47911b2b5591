"""What a listing of a whole source found unchanged is not written again: one moment says that it was seen."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0009.sql")


def downgrade() -> None:
    _run("0009_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
