"""What syncs brought in, written as they write it: loads that become live with a snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection


@dataclass
class Source:
    """A data source whose contents the tests write. `path` is its route."""

    connection: Connection
    organization_id: UUID
    project_id: UUID
    id: UUID

    @property
    def path(self) -> str:
        return f"projects/{ids.encode('proj', self.project_id)}/data-sources/{ids.encode('dsrc', self.id)}"

    def sync(
        self,
        files: Mapping[str, Sequence[Any]],
        *,
        rejects: Mapping[str, Sequence[str]] | None = None,
        job_id: UUID | None = None,
        shown: bool = True,
    ) -> UUID:
        """Bring in `files`, {path: records}, and show them in place of what the same paths held; the job's id."""
        job_id = job_id or self.job()
        refused = rejects or {}
        with self.connection.transaction():
            for path in sorted({*files, *refused}):
                self._load(job_id, path, files.get(path, ()), refused.get(path, ()), shown=shown)
            if shown:
                self.connection.execute(
                    "update data_source_totals set snapshot = snapshot + 1 where data_source_id = %s", (self.id,)
                )
        return job_id

    def job(self) -> UUID:
        """A sync that has ended."""
        job_id = ids.new()
        self.connection.execute(
            "insert into job (id, organization_id, project_id, data_source_id, kind, queue, status, max_attempts,"
            " deadline_seconds) values (%s, %s, %s, %s, 'sync', 'bulk', 'succeeded', 5, 60)",
            (job_id, self.organization_id, self.project_id, self.id),
        )
        return job_id

    def _load(self, job_id: UUID, path: str, records: Sequence[Any], refused: Sequence[str], *, shown: bool) -> None:
        if shown:
            self.connection.execute(
                "update load set valid_to = t.snapshot + 1 from data_source_totals t"
                " where t.data_source_id = load.data_source_id and load.data_source_id = %s and path = %s"
                " and valid_from is not null and valid_to is null",
                (self.id, path),
            )
        row = self.connection.execute(
            "insert into load (organization_id, data_source_id, job_id, path, fingerprint, loaded, valid_from,"
            " item_count, error_count)"
            " select %s, %s, %s, %s, 'how', true, case when %s then snapshot + 1 end, %s, %s"
            " from data_source_totals where data_source_id = %s returning id",
            (self.organization_id, self.id, job_id, path, shown, len(records), len(refused), self.id),
        ).fetchone()
        assert row is not None
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into item (load_id, record_number, data) values (%s, %s, %s)",
                [(row["id"], number, db.json(record)) for number, record in enumerate(records, start=1)],
            )
            cursor.executemany(
                "insert into reject (load_id, number, line, record_number, code, message, excerpt)"
                " values (%s, %s, %s, %s, 'invalid_json', 'This line is not JSON.', %s)",
                [(row["id"], number, number, number, excerpt) for number, excerpt in enumerate(refused, start=1)],
            )


@pytest.fixture
def source(connection: Connection, organization: CreatedOrganization, project: dict[str, Any]) -> Source:
    """An empty data source."""
    source = Source(connection, organization.organization_id, ids.decode("proj", project["id"]), ids.new())
    connection.execute(
        "insert into data_source (id, organization_id, project_id, name, type) values (%s, %s, %s, %s, 's3')",
        (source.id, source.organization_id, source.project_id, source.id.hex),
    )
    connection.execute(
        "insert into data_source_totals (data_source_id, organization_id) values (%s, %s)",
        (source.id, source.organization_id),
    )
    return source
