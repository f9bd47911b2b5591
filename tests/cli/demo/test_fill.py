"""Filling, where the API says no. That it works is the end-to-end tests' claim."""

from headwater_cli.demo import fill, serving
from headwater_cli.demo.serving import Answer, Request
from headwater_cli.demo.sources import DemoSource
from headwater_cli.errors import Failure


def _source(name: str) -> DemoSource:
    return DemoSource(name=name, type="local_files", description="", config={"path": "/data"})


def test_one_that_fails_does_not_stop_the_next() -> None:
    """Each is tried, and each one's reason is told."""

    def answer(request: Request) -> Answer:
        return serving.as_json({"detail": "Not today."}, 503, **{"Content-Type": "application/problem+json"})

    failures: list[tuple[str, Failure]] = []
    with serving.serve(0, answer) as url:
        fill.fill(url, "key", "p", [_source("one"), _source("two")], failed=lambda *found: failures.append(found))

    assert [name for name, _ in failures] == ["one", "two"]
    assert {failure.message.endswith("(503): Not today.") for _, failure in failures} == {True}


def test_a_users_own_source_of_that_name_is_left_alone() -> None:
    """One that points elsewhere is neither changed nor synced."""
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(f"{request.method} {request.path}")
        theirs = {"id": "ds_1", "name": "one", "type": "local_files", "config": {"path": "/mine"}, "last_sync_at": None}
        return serving.as_json({"data": [theirs], "next_cursor": None})

    failures: list[tuple[str, Failure]] = []
    with serving.serve(0, answer) as url:
        fill.fill(url, "key", "p", [_source("one")], failed=lambda *found: failures.append(found))

    assert (asked, failures) == (["GET /projects/p/data-sources"], [])
