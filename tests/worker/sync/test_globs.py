"""Globs: what they match, and that they never take long."""

import time

import pytest

from headwater_worker.sync.globs import Globs


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "deep/down/a.csv", True),
        ("*.csv", "a.csv.gz", False),
        ("data/*.csv", "data/a.csv", True),
        ("data/*.csv", "data/x/a.csv", False),
        ("data/**", "data/x/a.csv", True),
        ("data/**", "database/a.csv", False),
        ("data/", "data/x/a.csv", True),
        ("**/a.csv", "a.csv", True),
        ("**/x/**/*.csv", "1/x/2/3/a.csv", True),
        ("**/x/**/*.csv", "1/y/2/3/a.csv", False),
        ("a/**/b/**/c", "a/b/x/b/c", True),
        ("a?.csv", "ab.csv", True),
        ("[ab]*.csv", "b1.csv", True),
        ("[!ab]*.csv", "b1.csv", False),
        ("a.csv", "A.csv", False),
        ("(x).csv", "(x).csv", True),
    ],
)
def test_a_glob_matches_as_documented(pattern, path, matches):
    """By segment, by name without a slash, any depth with `**`."""
    assert (Globs(include=[pattern]).passed_over(path) is None) is matches


def test_exclude_wins_over_include():
    """A file that both name is passed over, for the reason that says so."""
    globs = Globs(include=["*.csv"], exclude=["tmp/**"])
    assert globs.passed_over("tmp/a.csv") == "excluded"
    assert globs.passed_over("a.txt") == "not_included"
    assert globs.passed_over("a.csv") is None


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "**/" * 30 + "b", "*/" * 3 + "**/*a*a*a*a*a*b"])
def test_a_hostile_glob_takes_no_time(pattern):
    """No pattern makes a path of a thousand characters expensive."""
    globs, path = Globs(include=[pattern]), "a" * 500 + "/" + "a/" * 250
    began = time.perf_counter()
    for _ in range(10):
        globs.passed_over(path)
    assert time.perf_counter() - began < 1
