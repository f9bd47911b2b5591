"""Every table, for Alembic and for tests: importing this fills `SQLModel.metadata`."""

from sqlmodel import SQLModel

from headwater import idempotency as idempotency
from headwater.access import rows as access_rows
from headwater.audit import rows as audit_rows
from headwater.catalogue import rows as catalogue_rows
from headwater.data_sources import rows as data_source_rows
from headwater.jobs import rows as job_rows
from headwater.measuring import rows as measuring_rows
from headwater.uploads import rows as upload_rows
from headwater.vault import rows as vault_rows
from headwater.webhooks import rows as webhook_rows

METADATA = SQLModel.metadata

__all__ = [
    "METADATA",
    "access_rows",
    "audit_rows",
    "catalogue_rows",
    "data_source_rows",
    "job_rows",
    "measuring_rows",
    "upload_rows",
    "vault_rows",
    "webhook_rows",
]
