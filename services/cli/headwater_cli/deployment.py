"""The deployment that operators' commands work on: its database, as the owner, and its key files.

On the local stack (`./dev admin`) what the environment does not say comes from the running stack.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from pydantic import ValidationError

from headwater import db
from headwater.errors import VaultError
from headwater.settings import VaultSettings
from headwater.vault import keyring
from headwater.vault.keyring import Keyring
from headwater_cli import home, outside
from headwater_cli.errors import Failure

KEY_FILES: Final = {"HEADWATER_MASTER_KEY_FILE": "master.key", "HEADWATER_PEPPER_FILE": "pepper"}


def connected() -> db.Connection:
    """A connection in autocommit, as the owner. Raises `Failure`."""
    url = database_url()
    try:
        return db.connect(url, application="headwater admin")
    except psycopg.Error:
        raise Failure(f"Postgres at {outside.address(url)} does not let us in.") from None


def database_url() -> str:
    """The owner's URL. Raises `Failure`."""
    url = os.environ.get("HEADWATER_DATABASE_URL")
    if url:
        return url
    stack = home.read_stack(home.find())
    if stack is None:
        raise Failure("There is no database to work on.", hint="Set HEADWATER_DATABASE_URL, or start ./dev up.")
    return str(stack["database_url"])


def key_file(name: str) -> Path:
    """Where the key file of the setting `name` is."""
    named = os.environ.get(name)
    return Path(named) if named else home.find().keys / KEY_FILES[name]


def key_provider() -> Keyring:
    """The key providers of the settings; without any, the key file of the local stack. Raises `Failure`."""
    with vault_failures():
        named = os.environ.get("HEADWATER_KEY_PROVIDER")
        settings = VaultSettings() if named else VaultSettings(master_key_file=master_key_file())
        keyring.require_strong(settings)
    return keyring.configured(settings)


def master_key_file() -> Path:
    """Where the master key's file is."""
    return key_file("HEADWATER_MASTER_KEY_FILE")


@contextmanager
def vault_failures() -> Iterator[None]:
    """What goes wrong with keys inside, as a `Failure` for the operator."""
    try:
        yield
    except VaultError as error:
        raise Failure(error.message, hint=error.hint or "") from error
    except ValidationError as error:
        reasons = "; ".join(finding["msg"].removeprefix("Value error, ") for finding in error.errors())
        raise Failure(f"The settings of the keys are not complete: {reasons}.", hint="See docs/settings.md.") from None
