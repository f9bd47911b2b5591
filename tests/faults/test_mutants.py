"""The seeded mistakes are still mistakes of this code."""

import pytest

from headwater_cli import home

from . import mutants
from .mutants import Mutant


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_names_a_test(mutant: Mutant) -> None:
    """Else it would be tried for nothing. Whether it is caught, `./dev faults mutants` says."""
    text = (home.checkout() / mutant.file).read_text(encoding="utf-8")
    assert (text.count(mutant.old), mutant.old != mutant.new) == (1, True)
    file, _, name = mutant.test.partition("::")
    tests = (home.checkout() / file).read_text(encoding="utf-8")
    assert not name or f"def {name.partition('[')[0]}(" in tests
