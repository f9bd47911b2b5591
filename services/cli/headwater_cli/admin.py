"""`headwater admin`: for operators, on the database and the key files themselves, never over HTTP."""

import json
import os
import secrets
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from headwater import db, ids
from headwater.access import api_keys, organizations
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.vault import providers
from headwater_cli import admin_keys, admin_organizations, deployment, files, logins, terminal
from headwater_cli import migrate as migrations
from headwater_cli.errors import Failure

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
admin = typer.Typer(no_args_is_help=True, help="Operators' commands, on the database itself.")
app.add_typer(admin, name="admin")
admin.add_typer(admin_organizations.commands)
admin.add_typer(admin_keys.commands)


@app.callback()
def _root() -> None:
    """Keeps `admin` a word of the command line."""


_IMAGE_ACCOUNT: Final = (10001, 10001)  # as in the Dockerfiles


@admin.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where docker-compose.yml is.")] = Path(),
) -> None:
    """Write `.env` and key files for a new deployment. Refuses to overwrite.

    The key files: whoever loses `keys/master.key` loses every stored credential. Keep a copy elsewhere.
    """
    environment, keys = folder / ".env", folder / "keys"
    existing = [
        path for path in (environment, *(keys / name for name in deployment.KEY_FILES.values())) if path.exists()
    ]
    if existing:
        raise Failure(
            f"There is a deployment here already: {', '.join(str(path) for path in existing)}.",
            hint="Nothing was written. Move these files away to begin anew.",
        )
    user, group = _container_account()
    keys.mkdir(parents=True, mode=0o700, exist_ok=True)
    for name in deployment.KEY_FILES.values():
        providers.create_key_file(keys / name)
        os.chown(keys / name, user, group)
    files.write_private(environment, _deployment(f"{user}:{group}"))
    terminal.plain(f"Wrote {environment}, {keys / 'master.key'} and {keys / 'pepper'}.")
    terminal.plain("Keep a copy of master.key elsewhere: without it no stored credential can be opened again.")
    terminal.plain("Next: docker compose up")


def _container_account() -> tuple[int, int]:
    """Who reads the key files in the containers: the caller, whose files they are; for root, the images' own user."""
    return _IMAGE_ACCOUNT if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def _deployment(account: str) -> str:
    # Letters, digits, - and _ only: these stand inside URLs.
    return "".join(
        f"{name}={value}\n"
        for name, value in {
            "HEADWATER_POSTGRES_PASSWORD": secrets.token_urlsafe(32),
            "HEADWATER_API_DATABASE_PASSWORD": secrets.token_urlsafe(32),
            "HEADWATER_WORKER_DATABASE_PASSWORD": secrets.token_urlsafe(32),
            "HEADWATER_SCHEDULER_DATABASE_PASSWORD": secrets.token_urlsafe(32),
            "HEADWATER_REDIS_PASSWORD": secrets.token_urlsafe(32),
            "HEADWATER_FLOWER_USER": "headwater",
            "HEADWATER_FLOWER_PASSWORD": secrets.token_urlsafe(24),
            "HEADWATER_METRICS_TOKEN": secrets.token_urlsafe(32),
            "HEADWATER_KEYS": "./keys",
            "HEADWATER_USER": account,
        }.items()
    )


@admin.command("create-keys")
def create_keys() -> None:
    """Make the master key file and the pepper file where they are missing."""
    for name in deployment.KEY_FILES:
        providers.create_key_file(deployment.key_file(name))


@admin.command("create-organization")
def create_organization(
    name: Annotated[str, typer.Option(help="The organization's name.")],
    email: Annotated[str, typer.Option(help="Of its first admin.")],
    project: Annotated[str, typer.Option(help="The name of its first project.")] = "Default",
) -> None:
    """Make an organization with its first admin, project and API key. Prints JSON; the key is shown this once."""
    pepper = api_keys.read_pepper(deployment.key_file("HEADWATER_PEPPER_FILE"))
    provider = deployment.key_provider()
    with deployment.vault_failures(), deployment.connected() as connection, connection.transaction():
        created = organizations.create(connection, name=name, email=email, pepper=pepper, provider=provider)
        project_id = _create_project(connection, created, name=project)
    shown = {
        "organization_id": ids.encode("org", created.organization_id),
        "project_id": ids.encode("proj", project_id),
        "api_key": created.api_key,
    }
    typer.echo(json.dumps(shown, indent=2))


def _create_project(connection: db.Connection, created: organizations.CreatedOrganization, *, name: str) -> UUID:
    project_id = ids.new()
    connection.execute(
        "insert into project (id, organization_id, name, created_by, updated_by) values (%s, %s, %s, %s, %s)",
        (project_id, created.organization_id, name, created.member_id, created.member_id),
    )
    db.run(
        connection,
        audit_log.entry(
            organization_id=created.organization_id, actor_id=None, act=Act.PROJECT_CREATE, subject_id=project_id
        ),
    )
    return project_id


@admin.command()
def migrate() -> None:
    """Bring the database to the schema of this code, and make the logins of the services.

    Their URLs stand in HEADWATER_API_DATABASE_URL, HEADWATER_WORKER_DATABASE_URL and HEADWATER_SCHEDULER_DATABASE_URL.
    """
    migrations.upgrade(deployment.database_url())
    logins.ensure(deployment.database_url(), logins.from_environment())


if __name__ == "__main__":
    try:
        admin()
    except Failure as failure:
        terminal.failure(failure)
        raise SystemExit(1) from None
