"""`headwater admin`, what concerns organizations that are there: list, suspend, limit, delete, verify, a new key."""

import json
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from headwater import db, ids
from headwater.access import api_keys
from headwater.access.rows import Member
from headwater.audit import chain
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.audit.chain import Head, Verification
from headwater.errors import NotFound
from headwater_cli import deployment, organizations, terminal
from headwater_cli.errors import Failure

commands = typer.Typer()

_JOBS_END_SECONDS: Final = 60.0

Organization = Annotated[str, typer.Argument(help="Its id (`org_...`) or its name.", metavar="ORGANIZATION")]
Limit = Annotated[str | None, typer.Option(help="A number; `default` takes it back.", metavar="N")]


@commands.command("list-organizations")
def list_organizations() -> None:
    """Every organization: id, state, members, limits. Prints a JSON object a line."""
    with deployment.connected() as connection:
        for row in organizations.listed(connection):
            typer.echo(json.dumps(row))


@commands.command("suspend-organization")
def suspend_organization(organization: Organization) -> None:
    """Shut an organization out: its keys are refused within five seconds, its queued jobs wait."""
    with deployment.connected() as connection:
        found = organizations.find(connection, organization)
        organizations.suspend(connection, found)
    terminal.plain(f"{found.name} is suspended. resume-organization lets it in again.")


@commands.command("resume-organization")
def resume_organization(organization: Organization) -> None:
    """Let a suspended organization in again; its queued jobs go on."""
    with deployment.connected() as connection:
        found = organizations.find(connection, organization)
        organizations.resume(connection, found)
    terminal.plain(f"{found.name} is in again.")


@commands.command("set-limits")
def set_limits(
    organization: Organization,
    data_sources: Limit = None,
    live_jobs: Limit = None,
    upload_bytes: Limit = None,
    webhooks: Limit = None,
    running_jobs: Limit = None,
    deadline_seconds: Limit = None,
) -> None:
    """Give an organization numbers of its own, instead of the deployment's."""
    given = {
        "data_sources": data_sources, "live_jobs": live_jobs, "upload_bytes": upload_bytes, "webhooks": webhooks,
        "running_jobs": running_jobs, "deadline_seconds": deadline_seconds,
    }  # fmt: skip
    limits = {name: _number(name, text) for name, text in given.items() if text is not None}
    if not limits:
        raise Failure("Nothing was asked for.", hint="For example: set-limits Acme --data-sources 500")
    with deployment.connected() as connection:
        found = organizations.find(connection, organization)
        organizations.set_limits(connection, found, limits)
    terminal.plain(f"{found.name}: {', '.join(f'{name} {limit or given[name]}' for name, limit in limits.items())}.")


def _number(name: str, text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdecimal():
        raise Failure(f"--{name.replace('_', '-')} is {text!r}, which is neither a number nor `default`.")
    return int(text)


@commands.command("delete-organization")
def delete_organization(
    organization: Organization,
    confirm: Annotated[str, typer.Option(help="The organization's name, once more.")] = "",
) -> None:
    """Delete an organization: nobody gets in, its secrets open no more, its jobs end, its rows go.

    There is no way back. Its audit log stays, for verify-audit. Killed, the same command goes on.
    """
    with deployment.connected() as connection:
        found = organizations.find(connection, organization)
        if confirm != found.name:
            raise Failure(
                f"This deletes {found.name} and all that it has, for ever.", hint=f"Say so: --confirm '{found.name}'"
            )
        cancelled = organizations.lock_out(connection, found)
        terminal.note(f"Nobody gets in any more, no credential opens; {cancelled} jobs are cancelled.")
        left = organizations.wait_for_jobs(connection, found, seconds=_JOBS_END_SECONDS)
        if left:
            terminal.note(f"{left} jobs have not ended after {_JOBS_END_SECONDS:.0f} s; they cannot write any more.")
        for name, gone in _counted(connection, found):
            terminal.note(f"Deleted {gone:,} {name}.")
    terminal.plain(
        f"{found.name} ({ids.encode('org', found.id)}) is deleted. The bytes of its uploads go within two hours."
    )


def _counted(connection: db.Connection, found: organizations.Found) -> list[tuple[str, int]]:
    """Purge; what went, and how many of each."""
    totals: dict[str, int] = {}
    for name, gone in organizations.purge(connection, found):
        totals[name] = totals.get(name, 0) + gone
    return list(totals.items())


@commands.command("create-api-key")
def create_api_key(
    organization: Organization,
    email: Annotated[str, typer.Option(help="Of the member whose key it will be.")],
    name: Annotated[str, typer.Option(help="The key's name.")] = "made by the operator",
) -> None:
    """Make an API key for a member who has lost every other one. Prints JSON; the key is shown this once."""
    pepper = api_keys.read_pepper(deployment.key_file("HEADWATER_PEPPER_FILE"))
    with deployment.connected() as connection, connection.transaction():
        found = organizations.find(connection, organization)
        db.set_organization(connection, found.id)
        member = _member(connection, found, email)
        issued = api_keys.issue(pepper)
        connection.execute(
            """
            insert into api_key (id, organization_id, member_id, name, role, secret_hash)
            values (%s, %s, %s, %s, %s, %s)
            """,
            (issued.id, found.id, member.id, name, member.role, issued.secret_hash),
        )
        entry = audit_log.entry(
            organization_id=found.id, actor_id=None, act=Act.API_KEY_CREATE, subject_id=issued.id,
            fields=["name", "role", "member_id"],
        )  # fmt: skip
        db.run(connection, entry)
    typer.echo(json.dumps({"organization_id": ids.encode("org", found.id), "api_key": issued.text}, indent=2))


def _member(connection: db.Connection, found: organizations.Found, email: str) -> Member:
    row = connection.execute(
        """
        select * from member
        where organization_id = %s and lower(email) = lower(%s) and removed_at is null
        """,
        (found.id, email),
    ).fetchone()
    if row is None:
        raise Failure(f"{found.name} has no member {email}.")
    return Member(**row)


@commands.command("verify-audit")
def verify_audit(
    organization: Annotated[str | None, typer.Argument(help="Its id or name; all, deleted ones too, without.")] = None,
    heads: Annotated[Path | None, typer.Option(help="What an earlier verify-audit printed: must still hold.")] = None,
) -> None:
    """Walk along the hash chains of the audit log. Prints a JSON object for each; exit code 1: one is broken.

    Keep the output elsewhere: with --heads it shows a chain that was rewritten or cut off as a whole.
    """
    known = {} if heads is None else _read_heads(heads)
    with deployment.connected() as connection:
        if organization is None:
            wanted = sorted({*chain.organizations(connection), *known})
        else:
            wanted = [_named(connection, organization)]
        found = [chain.verify(connection, each, known=known.get(each)) for each in wanted]
    for verification in found:
        typer.echo(json.dumps(_shown(verification)))
    if any(verification.broken_at is not None for verification in found):
        raise typer.Exit(1)


def _named(connection: db.Connection, organization: str) -> UUID:
    """By its id also one that is deleted."""
    try:
        return ids.decode("org", organization)
    except NotFound:
        return organizations.find(connection, organization).id


def _shown(found: Verification) -> dict[str, Any]:
    return {
        "organization_id": ids.encode("org", found.organization_id),
        "valid": found.broken_at is None,
        "sealed": found.head.seq,
        "unsealed": found.unsealed,
        "oldest_unsealed_seconds": round(found.unsealed_seconds, 1),
        "head": {"seq": found.head.seq, "hash": found.head.hash.hex()},
        "broken_at": found.broken_at,
        "reason": found.reason,
    }


def _read_heads(path: Path) -> dict[UUID, Head]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return {
            ids.decode("org", row["organization_id"]): Head(row["head"]["seq"], bytes.fromhex(row["head"]["hash"]))
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{path} is not what verify-audit prints.") from error
