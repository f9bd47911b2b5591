"""docs/settings.md is the whole truth about the environment."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from headwater import settings
from headwater_cli import home

_ROW = re.compile(r"^\| `(?P<name>HEADWATER_[A-Z_]+)` \|(?P<cells>.*)\|$", re.MULTILINE)
_VARIABLE = re.compile(r"HEADWATER_[A-Z]+(?:_[A-Z]+)*")
_CODE = ("shared", "services", "dev", "docker-compose.yml")
# `./dev env` puts these names together from the keys of stack.json.
_EXPORTED = {"HEADWATER_ORGANIZATION_ID", "HEADWATER_PROJECT_ID"}
# What `env://NAME` refers to; the operator makes the names up.
_MADE_UP = "HEADWATER_SECRET"
_TESTS_OWN = {"HEADWATER_TEST_POSTGRES_MAJOR"}


def fields() -> dict[str, FieldInfo]:
    """{variable: field} of every settings group."""
    groups = [group for group in vars(settings).values() if isinstance(group, type) and issubclass(group, BaseSettings)]
    return {f"HEADWATER_{name.upper()}": field for group in groups for name, field in group.model_fields.items()}


def rows() -> dict[str, list[str]]:
    """{variable: its cells} of the page."""
    page = (home.checkout() / "docs/settings.md").read_text(encoding="utf-8")
    return {found["name"]: [cell.strip() for cell in found["cells"].split("|")] for found in _ROW.finditer(page)}


def sources() -> Iterator[Path]:
    """Every text that may name a variable."""
    for name in _CODE:
        place = home.checkout() / name
        if place.is_file():
            yield place
        else:
            yield from (path for path in place.rglob("*") if path.suffix == ".py" or path.name == "Dockerfile")


def named_in_code() -> set[str]:
    """Every variable that code, images or compose name."""
    return {
        name
        for path in sources()
        for name in _VARIABLE.findall(path.read_text(encoding="utf-8"))
        if not name.endswith("_") and not name.startswith(_MADE_UP)
    }


def shown(default: Any) -> str:
    """A default as the page writes it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if default != "" else "empty"


@pytest.mark.parametrize("name", fields())
def test_a_setting_is_on_the_page_with_its_default(name: str) -> None:
    """Who changes a default changes the page."""
    field = fields()[name]
    cells = rows()[name]
    assert cells[2] == ("*required*" if field.is_required() else shown(field.default))


def test_every_variable_that_the_code_names_is_on_the_page() -> None:
    """Those of the launcher and of compose are settings too."""
    assert named_in_code() - rows().keys() == set()


def test_every_variable_on_the_page_is_somewhere_in_the_code() -> None:
    """What is gone leaves the page."""
    assert rows().keys() - named_in_code() - fields().keys() - _EXPORTED - _TESTS_OWN == set()


def test_every_variable_in_the_docs_is_on_the_page() -> None:
    """A guide never tells somebody to set what nobody reads."""
    pages = home.checkout().joinpath("docs").rglob("*.md")
    named = {name for page in pages for name in _VARIABLE.findall(page.read_text(encoding="utf-8"))}
    assert {name for name in named if not name.startswith(_MADE_UP)} - rows().keys() == set()
