"""The pages hold together, and say nothing that the code does not."""

import re
from pathlib import Path

import pytest

from headwater_api.main import app
from headwater_cli import home

STARTS_AND_STOPS = {f"{service}.{verb}" for service in ("scheduler", "deliverer") for verb in ("started", "stopped")}
_LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
_FIRST_CODE = re.compile(r"^\| (?P<cell>`[a-z_.]+`(?:, `[a-z_.]+`)*) \|", re.MULTILINE)
_ROUTE = re.compile(r"`(?P<method>GET|POST|PUT|PATCH|DELETE) (?:/api/v1)?(?P<path>(?:\.\.\.)?/[^`\s?]*)")


def pages() -> list[Path]:
    """Every page of docs/."""
    return sorted(home.checkout().joinpath("docs").rglob("*.md"))


def section(page: str, title: str) -> str:
    """The text below a heading of a page, up to the next one."""
    text = home.checkout().joinpath("docs", page).read_text(encoding="utf-8")
    return re.split(r"^## ", text.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def codes(text: str) -> set[str]:
    """The words in code style of the first column of its tables."""
    return {code for found in _FIRST_CODE.finditer(text) for code in re.findall(r"`([^`]+)`", found["cell"])}


def source(*folders: str) -> str:
    """All Python text in folders of the checkout."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for folder in folders
        for path in home.checkout().joinpath(folder).rglob("*.py")
    )


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that exists, and to a heading in it."""
    broken = []
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        if not target.exists() or (link["anchor"] and link["anchor"] not in anchors(target)):
            broken.append(link.group())
    assert broken == []


@pytest.mark.parametrize("folder", ["", "decisions"])
def test_every_page_is_in_the_index(folder: str) -> None:
    """A page that nothing leads to is not read."""
    index = home.checkout().joinpath("docs", folder, "README.md").read_text(encoding="utf-8")
    others = [path.name for path in home.checkout().joinpath("docs", folder).glob("*.md") if path.name != "README.md"]
    assert [name for name in others if f"({name})" not in index] == []


def routes() -> set[tuple[str, str]]:
    """(method, path) of every route, path parameters as `{}`."""
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path.removeprefix("/api/v1")))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_route_that_a_page_names_exists(page: Path) -> None:
    """`.../sync` stands for any path with that end."""
    known = routes()
    unknown = []
    for found in _ROUTE.finditer(page.read_text(encoding="utf-8")):
        method, path = found["method"], re.sub(r"\{\w+\}", "{}", found["path"])
        ends = [known_path for known_method, known_path in known if known_method == method]
        if not any(end.endswith(path[3:]) if path.startswith("...") else end == path for end in ends):
            unknown.append(found.group())
    assert unknown == []


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("jobs.md", "Error codes"),
        ("jobs.md", "Retry"),
        ("connection-tests.md", "Codes"),
        ("sync.md", "Rejects"),
        ("runbook.md", "Read the log"),
        ("access.md", "Sign-in through your identity provider"),
    ],
)
def test_every_code_of_a_table_is_in_the_code(page: str, title: str) -> None:
    """Clients and alerts decide by them."""
    known = source("shared", "services")
    documented = codes(section(page, title))
    assert documented
    assert {code for code in documented if f'"{code}"' not in known} == set()


def test_every_code_of_a_connector_is_in_the_table() -> None:
    """What a client meets has a line that says what to do."""
    connectors = source("services/worker/headwater_worker/connectors", "services/worker/headwater_worker/egress")
    raised = set(re.findall(r'code="([a-z_]+)"', connectors)) | set(re.findall(r'Meaning\(\s*"([a-z_]+)"', connectors))
    documented = codes(section("connection-tests.md", "Codes")) | codes(section("jobs.md", "Error codes"))
    assert raised
    assert raised - documented == set()


def test_every_log_event_is_in_the_runbook() -> None:
    """Whoever reads one at night finds what it means."""
    logged = set(re.findall(r'_log\.\w+\(\s*"([a-z_.]+)"', source("shared", "services")))
    documented = codes(section("runbook.md", "Read the log"))
    assert logged
    assert logged - documented - STARTS_AND_STOPS == set()
