"""The alert rules and the dashboard load, and ask for nothing that `/metrics` does not have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import making
import promql_parser
import pytest
import serving
import yaml
from prometheus_client import parser

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.measuring import gauges, tallies
from headwater_cli import home

TOKEN = "a token of the operator"
# What Prometheus itself knows of a target.
OF_PROMETHEUS = {"up"}
# Grafana puts a range in before it asks.
VARIABLES = {"$__rate_interval": "5m"}


def rules() -> list[dict[str, Any]]:
    """Every alert."""
    loaded = yaml.safe_load((home.checkout() / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    (group,) = loaded["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    loaded: dict[str, Any] = json.loads((home.checkout() / "deploy/grafana/headwater.json").read_text(encoding="utf-8"))
    return loaded


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """{where: expression} of alerts and panels, as Prometheus gets them."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable, value in VARIABLES.items():
        found = {where: text.replace(variable, value) for where, text in found.items()}
    return found


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of series in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument)
    else:
        for part in ("expr", "lhs", "rhs", "param"):
            below = getattr(node, part, None)
            if below is not None:
                yield from selectors(below)


@pytest.fixture(scope="module")
def series(
    database: str, pepper_file: Path, organization: CreatedOrganization
) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    """{name: the sets of labels} of a real answer, after a job has ended and been tallied for its source too."""
    with db.connect(database, application="tests") as connection:
        project_id = making.make_project(connection, organization.organization_id)
        source_id = making.make_source(connection, organization.organization_id, project_id)
        making.submit(connection, organization, project_id, source_id, "sync")
        connection.execute(
            "insert into job_progress (job_id, organization_id, phase) select id, organization_id, 'done' from job"
        )
        connection.execute("update job set status = 'failed', started_at = now(), finished_at = now()")
    with db.connect(making.as_service(database, "scheduler"), application="tests") as connection:
        tallies.add(connection, per_source=True)
        gauges.measure(connection, redis_up=True)
    settings = {
        "HEADWATER_DATABASE_URL": making.as_service(database, "api"),
        "HEADWATER_PEPPER_FILE": str(pepper_file),
        "HEADWATER_METRICS_TOKEN": TOKEN,
    }
    with serving.api(**settings) as api, httpx2.Client(trust_env=False) as client:
        url = api.url.removesuffix("/api/v1") + "/metrics"
        answer = client.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    found: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for family in parser.text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(tuple(sample.labels.items()))
    return found


@pytest.mark.parametrize("where", expressions())
def test_an_expression_asks_only_for_what_is_there(
    where: str, series: dict[str, set[tuple[tuple[str, str], ...]]]
) -> None:
    """Every name is in a real answer, and so is every label that is compared with a value."""
    asked = list(selectors(promql_parser.parse(expressions()[where])))
    assert asked
    for selector in asked:
        if selector.name in OF_PROMETHEUS:
            continue
        assert selector.name in series
        labels = [dict(labels) for labels in series[selector.name]]
        for matcher in selector.matchers.matchers:
            for value in matcher.value.split("|"):
                assert value in {found.get(matcher.name) for found in labels}, (matcher.name, value)


@pytest.mark.parametrize("where", expressions())
def test_an_expression_groups_by_labels_that_are_there(
    where: str, series: dict[str, set[tuple[tuple[str, str], ...]]]
) -> None:
    """A `sum by` of a label that nobody has is one sum of all."""
    text = expressions()[where]
    grouped = {label for labels in re.findall(r"by \(([\w, ]+)\)", text) for label in labels.split(", ")}
    known = {
        name
        for selector in selectors(promql_parser.parse(text))
        for labels in series.get(selector.name, ())
        for name, _ in labels
    }
    assert grouped - known == set()


def test_everything_that_is_measured_is_on_the_dashboard(series: dict[str, Any]) -> None:
    """Whoever measures something new shows it."""
    shown = {
        selector.name for text in expressions().values() for selector in selectors(promql_parser.parse(text))
    } - OF_PROMETHEUS
    families = {re.sub(r"_(sum|count)$", "_bucket", name) for name in series if name.startswith("headwater_")}
    assert families - shown == set()


def test_each_rule_has_what_prometheus_and_a_reader_need() -> None:
    """Nothing else either: Prometheus refuses a file with a field that it does not know."""
    for rule in rules():
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert re.fullmatch(r"Headwater[A-Z]\w+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}


def sections() -> dict[str, str]:
    """{anchor: text} of the runbook's sections of the third level."""
    text = (home.checkout() / "docs/runbook.md").read_text(encoding="utf-8")
    parts = re.split(r"^##+ (.+)$", text, flags=re.MULTILINE)
    return {title.lower(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_leads_to_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    """Which says what it means, what to look at and what to do."""
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == ("docs/runbook.md", rule["alert"].lower())
    said = re.findall(r"^- \*\*(.+?):\*\* \S", sections()[anchor], re.MULTILINE)
    assert said == ["Means", "Look at", "Do"]


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    """Both sides."""
    assert {title for title in sections() if title.startswith("headwater")} == {
        rule["alert"].lower() for rule in rules()
    }


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Each panel has its own id and place, on a grid 24 wide, and asks the chosen Prometheus."""
    loaded = dashboard()
    assert (loaded["title"], loaded["uid"], loaded["schemaVersion"]) == ("Headwater", "headwater", 39)
    (variable,) = loaded["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    numbers = [panel["id"] for panel in loaded["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [cell for panel in loaded["panels"] for cell in cells(panel["gridPos"])]
    assert len(set(places)) == len(places)
    assert {x for x, _ in places} == set(range(24))
    for panel in panels():
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["description"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {(source["type"], source["uid"]) for source in sources} == {("prometheus", "${datasource}")}


def cells(place: dict[str, int]) -> list[tuple[int, int]]:
    """Every cell of the grid that a panel covers."""
    return [
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    ]


def test_the_page_has_every_panel_alert_and_name(series: dict[str, Any]) -> None:
    """And no other."""
    text = (home.checkout() / "docs/monitoring.md").read_text(encoding="utf-8")

    def column(title: str) -> set[str]:
        section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        cells = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
        return {cell for cell in cells if cell not in {"name", "panel", "alert"} and not cell.startswith("---")}

    assert column("The dashboard") == {panel["title"] for panel in panels()}
    assert {cell.partition("]")[0].removeprefix("[") for cell in column("The alerts")} == {
        rule["alert"] for rule in rules()
    }
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series if name.startswith("headwater_")}
    assert column("What is measured") == {f"`{name}`" for name in names}
