"""Readiness, as a load balancer asks for it."""

import httpx2
import pytest
from serving import Api

from headwater import db


@pytest.mark.parametrize(
    ("schema", "status", "said"),
    [
        (db.REVISION, 200, "ok"),
        ("9999", 200, "ok"),
        ("0000", 503, f"schema 0000 where {db.REVISION} is needed"),
        (None, 503, f"schema none where {db.REVISION} is needed"),
    ],
)
def test_ready_with_this_versions_schema_or_a_newer_one(
    api: Api, database: str, schema: str | None, status: int, said: str
) -> None:
    """While a deploy is under way the former version serves on the schema of the next one."""
    with db.connect(database, application="tests") as connection:
        connection.execute("delete from alembic_version")
        if schema is not None:
            connection.execute("insert into alembic_version (version_num) values (%s)", (schema,))
        try:
            answer = httpx2.get(api.url.removesuffix("/api/v1") + "/readyz", trust_env=False)
        finally:
            connection.execute("delete from alembic_version")
            connection.execute("insert into alembic_version (version_num) values (%s)", (db.REVISION,))
    assert (answer.status_code, answer.json()["checks"]["database"]) == (status, said)
