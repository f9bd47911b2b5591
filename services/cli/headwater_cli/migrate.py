"""`python -m headwater_cli.migrate`: bring the database of `HEADWATER_DATABASE_URL` to the schema of this code.

Then the logins exist that `HEADWATER_API_DATABASE_URL` and its siblings name.
"""

import os
import sys

from alembic import command
from alembic.config import Config

from headwater_cli import logins
from headwater_cli.errors import Failure
from headwater_cli.home import checkout


def upgrade(database_url: str) -> None:
    """Run Alembic's `upgrade head` on `database_url`.

    Raises:
        Failure: there are no migrations here.
    """
    config = Config(toml_file=checkout() / "pyproject.toml")
    config.attributes["url"] = database_url
    command.upgrade(config, "head")


def main() -> int:
    """The exit code: 2 without a database to work on."""
    url = os.environ.get("HEADWATER_DATABASE_URL")
    if not url:
        sys.stderr.write("HEADWATER_DATABASE_URL is not set.\n")
        return 2
    try:
        upgrade(url)
        logins.ensure(url, logins.from_environment())
    except Failure as failure:
        sys.stderr.write(f"{failure.message} {failure.hint or ''}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
