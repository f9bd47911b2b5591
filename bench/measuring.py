"""What a bench measures: our way beside a baseline, in the same run, in turns.

    seconds = interleaved({"ours": ours, "boto3": baseline}, rounds=3)
    Figure("first listing", "objects/s", ours=n / median(seconds["ours"]), baseline=n / median(seconds["boto3"]),
           beside="boto3", goal=AtLeast(10))

Rates are of this machine in this hour; ratios travel. Memory has no baseline: its goal is a size.
"""

import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

median = statistics.median

Bound = Literal["at least", "at most"]


@dataclass(frozen=True)
class Goal:
    """`ratio` must be at least, or at most, this."""

    bound: Bound
    ratio: float

    def met_by(self, ratio: float) -> bool:
        """Whether `ratio` is on the right side."""
        return ratio >= self.ratio if self.bound == "at least" else ratio <= self.ratio

    def __str__(self) -> str:
        return f"{'>=' if self.bound == 'at least' else '<='} {self.ratio:g}"


def at_least(ratio: float) -> Goal:
    """A goal for rates."""
    return Goal("at least", ratio)


def at_most(ratio: float) -> Goal:
    """A goal for times and sizes."""
    return Goal("at most", ratio)


@dataclass(frozen=True)
class Figure:
    """`ours` and `baseline` in `unit`; `beside` names the baseline. `goal` None: told, without a verdict."""

    work: str
    unit: str
    ours: float
    baseline: float
    beside: str
    goal: Goal | None = None

    @property
    def ratio(self) -> float:
        """Ours to the baseline."""
        return self.ours / self.baseline

    @property
    def met(self) -> bool:
        """Whether the goal is."""
        return self.goal is None or self.goal.met_by(self.ratio)


@dataclass
class Report:
    """The figures of one table. `series`: for plots, lists of points {"x", "y"} by the name of their line."""

    table: str
    figures: list[Figure] = field(default_factory=list)
    series: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def add(self, figure: Figure) -> None:
        """One more figure, told at once: a bench takes its time."""
        self.figures.append(figure)
        print(line(figure), flush=True)

    def save(self, folder: Path) -> Path:
        """Write the figures and where they were measured to `<folder>/<table>.json`."""
        path = folder / f"{self.table}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._as_json(), indent=1) + "\n")
        return path

    def _as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "measured_at": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "figures": [{**asdict(figure), "ratio": figure.ratio, "met": figure.met} for figure in self.figures],
            "series": self.series,
        }


def machine() -> dict[str, Any]:
    """What the figures depend on, as far as it can be told."""
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


_HEAD: Final = f"{'':58} {'ours':>11} {'baseline':>11} {'ratio':>7}  goal"


def head() -> str:
    """The line above `line`s."""
    return _HEAD


def line(figure: Figure) -> str:
    """A figure for people at a terminal."""
    verdict = "" if figure.goal is None else f"{figure.goal}  {'met' if figure.met else 'MISSED'}"
    name = f"{figure.work} [{figure.unit}, beside {figure.beside}]"
    return f"{name:58} {_short(figure.ours):>11} {_short(figure.baseline):>11} {figure.ratio:7.3g}  {verdict}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interleaved(ways: Mapping[str, Callable[[], float]], *, rounds: int = 3) -> dict[str, list[float]]:
    """What each way gave, round by round: all ways in turns, so that a slow moment falls on all of them."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        # The one that goes first in one round goes last in the next.
        order: Sequence[str] = list(ways) if number % 2 == 0 else list(reversed(ways))
        for name in order:
            gc.collect()
            values[name].append(ways[name]())
    return values
