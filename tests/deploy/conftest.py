"""What the files of the production shape say, read once."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater_cli import home

# ${NAME:-default} and ${NAME:?message}: the only two forms that the compose file uses.
INTERPOLATION = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder with docker-compose.yml."""
    return home.checkout()


@pytest.fixture(scope="session")
def compose_text(checkout: Path) -> str:
    """docker-compose.yml as it stands."""
    return (checkout / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def interpolated(compose_text: str) -> dict[str, bool]:
    """Every variable that docker-compose.yml takes from `.env` or the shell, and whether it must be there."""
    return {found["name"]: found["kind"] != "-" for found in INTERPOLATION.finditer(compose_text)}


@pytest.fixture(scope="session")
def compose(compose_text: str) -> dict[str, Any]:
    """docker-compose.yml, merged and interpolated with its defaults; a required value is the word `required`."""
    text = INTERPOLATION.sub(lambda found: found["rest"] if found["kind"] == "-" else "required", compose_text)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
