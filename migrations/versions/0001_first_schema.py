"""The first schema."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

_SQL = Path(__file__).parent.parent / "sql" / "0001.sql"
_TABLES = (
    "worker, job_progress, job_attempt, job_lease, job, reject, item_key, item, load, file, upload, event, "
    "data_source_totals, data_source_version, data_source, project, idempotency_record, audit_entry, "
    "sealed_credential, organization_private_key, organization_key, api_key, member, organization"
)
_FUNCTIONS = "api_key_read, job_cancel, job_submit, job_read, guard_job_status, refuse_change, uuid_v7"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text().replace("%", "%%"))


def downgrade() -> None:
    op.execute("drop view job_view")
    op.execute(f"drop table {_TABLES}")
    op.execute(f"drop function {_FUNCTIONS}")
