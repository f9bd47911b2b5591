"""`headwater admin`, what concerns keys: rotate those of organizations and the master key, verify them all."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from headwater_cli import deployment, master_keys, organizations, rotation, terminal
from headwater_cli.errors import Failure
from headwater_cli.master_keys import MasterKey
from headwater_cli.opening import Opener

commands = typer.Typer()

Organization = Annotated[str | None, typer.Argument(help="Its id (`org_...`) or its name.", metavar="[ORGANIZATION]")]


@commands.command("rotate-keys")
def rotate_keys(
    organization: Organization = None,
    everybody: Annotated[bool, typer.Option("--all", help="Every organization, one after another.")] = False,
    older_than: Annotated[int, typer.Option(min=0, help="Only keys that are so many days old.", metavar="DAYS")] = 0,
) -> None:
    """Give an organization a new key, seal its secrets to it, delete the old one. Jobs and the API go on meanwhile.

    Killed, the same command goes on. Exit code 1: something does not open, and its key stays; verify-keys shows what.
    """
    if (organization is None) != everybody:
        raise Failure("Say which.", hint="rotate-keys ORGANIZATION, or rotate-keys --all")
    unopened = 0
    with _openers(organization, older_than_days=older_than) as openers:
        for name, opener in openers:
            unopened += _rotate(name, opener)
    if unopened:
        raise typer.Exit(1)


def _rotate(name: str, opener: Opener) -> int:
    """Rotate one; how many of its secrets do not open."""
    begun = rotation.begin(opener)
    terminal.note(f"{name}: a new key seals." if begun else f"{name}: an earlier rotation goes on.")
    progress = rotation.Progress()
    for progress in rotation.go_on(opener):
        terminal.note(f"{name}: {progress.resealed:,} secrets are sealed anew.")
    left = len(progress.unopened)
    kept = f"; {left:,} do not open, and their key stays" if left else ""
    terminal.plain(
        f"{name}: {progress.resealed:,} secrets sealed anew, {len(progress.deleted)} old keys deleted{kept}."
    )
    return left


@commands.command("rotate-master-key")
def rotate_master_key() -> None:
    """Wrap the private keys of all organizations with the newest master key. Jobs and the API go on meanwhile.

    Every worker must have that key before, and the old one until the end. Killed, the same command goes on.
    """
    rewrapped, still = 0, Counter[MasterKey]()
    with _openers(None) as openers:
        wanted: MasterKey | None = None
        for name, opener in openers:
            wanted = wanted or master_keys.newest(opener.provider)
            done = master_keys.rewrap(opener, wanted)
            if done:
                terminal.note(f"{name}: {done} keys are wrapped with {wanted}.")
            rewrapped += done
            still += master_keys.wrapped_by(opener)
    terminal.plain(f"{rewrapped:,} keys were wrapped anew.")
    for master_key, count in still.items():
        terminal.plain(f"{master_key} wraps {count:,} keys.")
    if wanted is not None and set(still) - {wanted}:
        raise Failure("Others than the newest still wrap keys.", hint="Run the same again.")
    terminal.plain("No other master key is needed any more, but for what backups of the database hold.")


@commands.command("verify-keys")
def verify_keys(organization: Organization = None) -> None:
    """Open every key and every secret, and say what is not as it should be. Prints a JSON object for each organization.

    Exit code 1: a secret does not open, a rotation has not ended, or another master key than the newest is in use.
    """
    done = True
    with _openers(organization) as openers:
        for _name, opener in openers:
            newest = master_keys.newest(opener.provider)
            found = master_keys.verify(opener)
            typer.echo(json.dumps(found.shown(newest)))
            done &= found.is_done(newest)
    if not done:
        raise typer.Exit(1)


@contextmanager
def _openers(organization: str | None, *, older_than_days: int = 0) -> Iterator[Iterator[tuple[str, Opener]]]:
    """The organization, or all that are not being deleted, each with its opener; what goes wrong is a `Failure`."""
    provider = deployment.key_provider()
    with deployment.vault_failures(), deployment.connected() as connection:
        if organization is None:
            named = organizations.with_keys(connection, older_than_days=older_than_days)
        else:
            named = [organizations.find(connection, organization)]
        yield ((found.name, Opener(connection, found.id, provider)) for found in named)
