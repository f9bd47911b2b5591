"""Keys can be rotated; credentials may be references."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0008.sql")


def downgrade() -> None:
    _run("0008_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((_SQL / name).read_text().replace("%", "%%"))
