"""The drills in small: what they measure is measured, and a goal that is missed is said."""

import random
from pathlib import Path

import pytest
from drills import versions, waiting
from drills.figures import Figure
from drills.ground import Ground
from engines import Engine


@pytest.fixture
def ground(engine: Engine) -> Ground:
    """The plant with its shortened clockwork."""
    return Ground(engine, None, random.Random(1), print, waiters=200)


def test_a_goal_is_met_by_all_that_it_is_about() -> None:
    """p99 of a hundred leaves one out, max none; where nothing was measured nothing is met."""
    values = [0.1] * 99 + [2]
    assert Figure("start", values, goals={"p50": 0.1, "p99": 1}).met
    assert not Figure("start", values, goals={"p99": 1, "max": 1}).met
    assert not Figure("start", [], goals={"p99": 1}).met


def test_a_figure_says_its_goal_and_whether_it_is_met() -> None:
    """On one line, beside what was measured."""
    line = str(Figure("start", [1, 2, 3], goals={"p99": 2.5}))
    assert " ".join(line.split()) == "start p50 2 p99 3 max 3 s n 3 goal p99 <= 2.5 MISSED"


def test_waiters_are_woken_by_the_change(ground: Ground) -> None:
    """Two hundred sockets on one job and on two hundred; nobody waits until its 30 s are over."""
    one, many = waiting.waiters(ground)
    assert (len(one.values), len(many.values)) == (200, 200)
    assert max(one.at("max"), many.at("max")) < 10


def test_the_former_version_works_beside_this_one(ground: Ground) -> None:
    """On this version's schema, as while a deployment replaces one worker after another."""
    try:
        figures = versions.two_versions(ground)
    except versions.NoFormerVersion as reason:
        pytest.skip(str(reason))
    assert [figure for figure in figures if not figure.met] == []


def test_without_history_there_is_no_former_version(tmp_path: Path) -> None:
    """A reason is given, and nothing is guessed."""
    with pytest.raises(versions.NoFormerVersion, match="no checkout of git"):
        versions.former(tmp_path)
