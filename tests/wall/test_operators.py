"""What operators do with whole organizations, as the owner of the tables or, as in compose, as a superuser."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making
import pytest

from headwater import db, ids
from headwater.access import api_keys
from headwater.db import Connection
from headwater.errors import LeaseLost
from headwater.jobs import lifecycle
from headwater.settings import JobSettings
from headwater_cli import organizations
from headwater_cli.errors import Failure

# What outlives its organization: the log, and uploads until their bytes are gone.
STAYS = {"audit_entry", "audit_chain", "upload"}


@pytest.fixture(params=["owner", "superuser"])
def operating(request: pytest.FixtureRequest, owner: str, database: str) -> Iterator[Connection]:
    """A connection as the owner of the tables, once as no superuser and once as one."""
    with db.connect(owner if request.param == "owner" else database, application="tests") as connection:
        yield connection


def rows_of(connection: Connection, tenant: Any) -> dict[str, int]:
    """How many rows of each table belong to the tenant."""
    by_owner = connection.execute(
        """
        select c.relname as name from pg_attribute a join pg_class c on c.oid = a.attrelid
        where a.attname = 'organization_id' and not a.attisdropped
          and c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
        """
    ).fetchall()
    conditions = {row["name"]: "organization_id = %(id)s" for row in by_owner} | {
        "organization": "id = %(id)s",
        "item": "load_id = %(load)s",
        "reject": "load_id = %(load)s",
        "item_key": "load_id = %(load)s",
    }
    found = {}
    for table, condition in conditions.items():
        query = f"select count(*) as n from {table} where {condition}"
        row = connection.execute(query, {"id": tenant.id, "load": tenant.load_id}).fetchone()
        assert row is not None
        found[table] = row["n"]
    return found


def admin(url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`headwater admin ...` on the database at `url`."""
    return subprocess.run(
        (sys.executable, "-m", "headwater_cli.admin", *arguments),
        env={"PATH": os.environ["PATH"], "HEADWATER_DATABASE_URL": url, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_deleting_leaves_nothing_of_one_and_everything_of_another(
    connection: Connection, operating: Connection, make_tenant: Any
) -> None:
    """Every table is looked at; the other tenant loses no row, whoever the operator is."""
    ours, theirs = make_tenant(), make_tenant()
    before = rows_of(connection, theirs)
    assert [table for table, count in rows_of(connection, ours).items() if not count] == ["audit_chain"]
    found = organizations.find(operating, ids.encode("org", ours.id))
    organizations.lock_out(operating, found)
    assert dict(organizations.purge(operating, found))["items"] == 1
    assert {table for table, count in rows_of(connection, ours).items() if count} == STAYS - {"audit_chain"}
    assert rows_of(connection, theirs) == before


def test_nobody_gets_in_from_the_first_moment_on(
    connection: Connection, operating: Connection, make_tenant: Any
) -> None:
    """Before a row is purged: keys are dead, no secret and no private key is left, live jobs are asked to stop."""
    tenant = make_tenant()
    found = organizations.find(operating, ids.encode("org", tenant.id))
    assert organizations.lock_out(operating, found) == 1
    left = rows_of(connection, tenant)
    assert (left["sealed_credential"], left["organization_key"], left["job"]) == (0, 0, 1)
    alive = connection.execute(
        "select 1 from api_key where organization_id = %s and revoked_at is null", (tenant.id,)
    ).fetchone()
    job = connection.execute(
        "select status, (select cancel from job_lease where job_id = id) as cancel from job where id = %s",
        (tenant.job_id,),
    ).fetchone()
    assert (alive, job) == (None, {"status": "cancelling", "cancel": True})
    assert organizations.wait_for_jobs(operating, found, seconds=0) == 1


def test_a_job_that_did_not_end_in_time_cannot_write_any_more(
    operating: Connection, working: Connection, make_tenant: Any
) -> None:
    """Its lease went with its row."""
    tenant = make_tenant()
    found = organizations.find(operating, ids.encode("org", tenant.id))
    organizations.lock_out(operating, found)
    for _ in organizations.purge(operating, found):
        pass
    with pytest.raises(LeaseLost), lifecycle.fenced(working, tenant.claim):
        pass
    assert lifecycle.claim(working, tenant.job_id, worker="tests", settings=JobSettings()) is None


def test_a_deletion_that_was_killed_goes_on(connection: Connection, operating: Connection, make_tenant: Any) -> None:
    """Cut off between any two steps, the same again ends it."""
    tenant = make_tenant()
    found = organizations.find(operating, ids.encode("org", tenant.id))
    while True:
        organizations.lock_out(operating, found)
        if next(organizations.purge(operating, found), None) is None:
            break
    assert {table for table, count in rows_of(connection, tenant).items() if count} == STAYS - {"audit_chain"}


def test_the_command_asks_for_the_name_and_deletes(
    owner: str, connection: Connection, scheduling: Connection, make_tenant: Any
) -> None:
    """Without the name nothing happens; with it, the organization is gone and its log can still be verified."""
    tenant = make_tenant("Short-lived")
    connection.execute("update job set status = 'failed' where id = %s", (tenant.job_id,))
    named = ids.encode("org", tenant.id)
    refused = admin(owner, "delete-organization", named)
    assert (refused.returncode, "--confirm 'Short-lived'" in refused.stderr) == (1, True)
    assert rows_of(connection, tenant)["organization"] == 1
    done = admin(owner, "delete-organization", named, "--confirm", "Short-lived")
    assert (done.returncode, done.stderr.count("Deleted 1 items.")) == (0, 1), done.stderr
    making.seal_all(scheduling)
    verified = admin(owner, "verify-audit", named)
    shown = json.loads(verified.stdout)
    assert (verified.returncode, shown["valid"], shown["unsealed"]) == (0, True, 0)
    assert shown["sealed"] == rows_of(connection, tenant)["audit_entry"] > 0


def test_verify_audit_says_what_was_changed(
    owner: str, connection: Connection, scheduling: Connection, make_tenant: Any, tmp_path: Path
) -> None:
    """Exit code 1, the place and the reason; a noted head shows what the chain by itself does not."""
    tenant = make_tenant()
    making.seal_all(scheduling)
    named = ids.encode("org", tenant.id)
    noted = admin(owner, "verify-audit")
    (tmp_path / "heads").write_text(noted.stdout)
    assert (noted.returncode, named in noted.stdout) == (0, True)
    connection.execute("set session_replication_role = replica")
    connection.execute("delete from audit_chain where organization_id = %s", (tenant.id,))
    connection.execute("delete from audit_entry where organization_id = %s", (tenant.id,))
    unseen, seen = admin(owner, "verify-audit"), admin(owner, "verify-audit", "--heads", str(tmp_path / "heads"))
    assert (unseen.returncode, named in unseen.stdout) == (0, False)
    shown = next(json.loads(line) for line in seen.stdout.splitlines() if named in line)
    assert (seen.returncode, shown["valid"], shown["broken_at"]) == (1, False, 1)
    assert shown["reason"] == "the chain ends before the head that was noted"


def test_an_organization_is_suspended_and_let_in_again(owner: str, connection: Connection, make_tenant: Any) -> None:
    """By name; each is audited, and list-organizations shows the state."""
    tenant = make_tenant("Late payer")

    def state() -> str:
        rows = [json.loads(line) for line in admin(owner, "list-organizations").stdout.splitlines()]
        return str(next(row["state"] for row in rows if row["name"] == "Late payer"))

    assert admin(owner, "suspend-organization", "Late payer").returncode == 0
    assert state() == "suspended"
    assert admin(owner, "resume-organization", "Late payer").returncode == 0
    assert state() == "active"
    acts = connection.execute(
        "select act from audit_entry where organization_id = %s order by number desc limit 2", (tenant.id,)
    ).fetchall()
    assert [row["act"] for row in acts] == ["organization.resume", "organization.suspend"]


def test_limits_are_set_and_taken_back(owner: str, connection: Connection, make_tenant: Any) -> None:
    """A number of its own, then the deployment's again; what was not named stays."""
    tenant = make_tenant()
    named = ids.encode("org", tenant.id)

    def limits() -> dict[str, Any]:
        row = connection.execute(
            "select data_source_limit, live_job_limit, running_limit from organization where id = %s", (tenant.id,)
        ).fetchone()
        assert row is not None
        return row

    assert admin(owner, "set-limits", named, "--data-sources", "5", "--running-jobs", "64").returncode == 0
    assert limits() == {"data_source_limit": 5, "live_job_limit": None, "running_limit": 64}
    assert admin(owner, "set-limits", named, "--data-sources", "default").returncode == 0
    assert limits() == {"data_source_limit": None, "live_job_limit": None, "running_limit": 64}
    assert admin(owner, "set-limits", named, "--data-sources", "many").returncode == 1


def test_a_name_that_two_have_is_not_guessed(operating: Connection, make_tenant: Any) -> None:
    """The operator names one by its id."""
    make_tenant("Twin"), make_tenant("Twin")
    with pytest.raises(Failure, match=r"\d organizations are called Twin"):
        organizations.find(operating, "Twin")
    with pytest.raises(Failure, match="There is no organization"):
        organizations.find(operating, "Nobody")


def test_a_member_who_lost_every_key_gets_a_new_one(
    owner: str, connection: Connection, make_tenant: Any, pepper_file: Path
) -> None:
    """With the member's role; the key is good, and audited."""
    tenant = make_tenant()
    settings = {"HEADWATER_PEPPER_FILE": str(pepper_file)}
    named = ids.encode("org", tenant.id)
    done = admin(owner, "create-api-key", named, "--email", "ADA@example.com", **settings)
    assert done.returncode == 0, done.stderr
    key = api_keys.parse(json.loads(done.stdout)["api_key"])
    secret_hash = api_keys.hash_secret(key.secret, api_keys.read_pepper(pepper_file))
    row = connection.execute("select api_key_read(%s, %s) as key", (key.id, secret_hash)).fetchone()
    assert row is not None
    assert (row["key"]["role"], row["key"]["state"]) == ("admin", "usable")
    assert admin(owner, "create-api-key", named, "--email", "eve@example.com", **settings).returncode == 1
