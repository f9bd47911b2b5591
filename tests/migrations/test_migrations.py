"""The schema and the rows say the same, and the way down leads up again."""

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from headwater import db


def config(database: str) -> Config:
    config = Config(toml_file="pyproject.toml")
    config.attributes["url"] = database
    return config


def test_rows_and_schema_agree(database: str) -> None:
    """`alembic check` finds nothing to migrate."""
    assert command.check(config(database)) is None


def test_down_and_up_again(database: str) -> None:
    """After the way down nothing of Headwater is left but Alembic's own table; the way up works again."""
    command.downgrade(config(database), "base")
    with psycopg.connect(database) as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        functions = connection.execute(
            "select proname from pg_proc where pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert (tables, functions) == ([("alembic_version",)], [])
    command.upgrade(config(database), "head")


def test_the_code_names_the_newest_revision() -> None:
    """Readiness compares the database with `db.REVISION`."""
    assert ScriptDirectory.from_config(Config(toml_file="pyproject.toml")).get_current_head() == db.REVISION
