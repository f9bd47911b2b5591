"""A figure: what was measured, beside what it should be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Share = Literal["p50", "p99", "max"]

_SHARES: Final[dict[Share, float]] = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Figure:
    """`values` of one thing in `unit`. `goals`: what a share of them may be at most; without one it is only told."""

    name: str
    values: Sequence[float]
    unit: str = "s"
    goals: Mapping[Share, float] = field(default_factory=dict)

    def at(self, share: Share) -> float:
        """The smallest value that so many do not exceed; infinite where nothing was measured."""
        if not self.values:
            return math.inf
        return sorted(self.values)[math.ceil(_SHARES[share] * len(self.values)) - 1]

    @property
    def met(self) -> bool:
        """Whether all goals are."""
        return all(self.at(share) <= goal for share, goal in self.goals.items())

    def __str__(self) -> str:
        measured = "  ".join(f"{share} {self.at(share):.3g}" for share in _SHARES)
        line = f"{self.name:<46} {measured} {self.unit}  n {len(self.values)}"
        if not self.goals:
            return line
        goals = ", ".join(f"{share} <= {goal:g}" for share, goal in self.goals.items())
        return f"{line}  goal {goals}  {'met' if self.met else 'MISSED'}"
