"""`./dev bench TABLE ...`: each table builds its own stores and data, and prints ratios beside the goals.

`--quick` runs everything at a hundredth of its size, to see that it runs: its figures mean nothing. `--save` keeps the
figures for the page; `./dev bench plots` draws them.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Final

sys.path[:0] = [str(Path(__file__).parents[1] / "tests/plugins")]

from bench import measuring  # noqa: E402 - what benches import stands there
from bench.measuring import Report  # noqa: E402

SAVED: Final = Path(__file__).parents[1] / "docs/performance"

# Each module has `run(report, quick=...)`, which adds figures to the report.
TABLES: Final = {
    "catalogue": "how fast a listing becomes the catalogue",
    "items": "records from a bucket into Postgres, and in how much memory",
    "api": "how fast the API answers",
    "jobs": "what a job takes beside a bare Celery task",
    "scale": "the product on a full database",
    "costs": "what one of each costs, in CPU, WAL, memory and connections",
    "egress": "what the way out costs",
}


def main() -> int:
    """The exit code: 0 if every goal was met."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__, formatter_class=_Plain)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="; ".join(f"{n}: {w}" for n, w in TABLES.items()))
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {SAVED.name}/")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - TABLES.keys() - {"plots"}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(TABLES)} and plots")
    met = True
    for name in arguments.tables or TABLES:
        met = _run(name, quick=arguments.quick, save=arguments.save) and met
    return 0 if met or arguments.quick else 1


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written."""


def _run(name: str, *, quick: bool, save: bool) -> bool:
    if name == "plots":
        importlib.import_module("bench.plots").draw(SAVED)
        return True
    print(f"\n{name}: {TABLES[name]}{' (quick: the figures mean nothing)' if quick else ''}\n{measuring.head()}")
    report = Report(name)
    importlib.import_module(f"bench.{name}").run(report, quick=quick)
    if save:
        print(f"saved to {report.save(SAVED)}")
    return all(figure.met for figure in report.figures)


if __name__ == "__main__":
    sys.exit(main())
