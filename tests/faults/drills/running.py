"""Which drills there are, and running them: each on stores of its own, all figures at the end."""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import engines

from drills import cancels, crashes, memory, outages, restarts, turns, versions, waiting
from drills.figures import Figure
from drills.ground import CLOCKWORK, Ground
from drills.versions import NoFormerVersion

DRILLS: Final[dict[str, Callable[[Ground], list[Figure]]]] = {
    "idle": turns.idle_start,
    "cancels": cancels.cancels,
    "children": crashes.killed_children,
    "workers": crashes.killed_workers,
    "redis": outages.redis_away,
    "flood": turns.flood,
    "waiters": waiting.waiters,
    "memory": memory.memory,
    "versions": versions.two_versions,
    "restarts": restarts.rolling_restarts,
}


def main(argv: Sequence[str]) -> int:
    """`./dev faults drills NAME ... --seed N`: the exit code, 0 if every goal was met."""
    parser = argparse.ArgumentParser(prog="./dev faults drills", description="How long it takes until jobs go on.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(DRILLS)}; all without")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--restarts", type=int, default=50, help="how many rolling restarts")
    parser.add_argument("--waiters", type=int, default=2000, help="how many clients wait at once")
    parser.add_argument("--former", metavar="REV", help="the other version, if not that before the newest migration")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - DRILLS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(DRILLS)}")
    options = {name: getattr(arguments, name) for name in ("restarts", "waiters", "former")}
    return 0 if _all_met(arguments.names or list(DRILLS), arguments.seed, options) else 1


def _all_met(names: Sequence[str], seed: int, options: dict[str, Any]) -> bool:
    _say(f"seed {seed}")
    figures: list[Figure] = []
    broken: list[str] = []
    for name in names:
        began = time.monotonic()
        _say(f"{name}: {(DRILLS[name].__doc__ or '').splitlines()[0]}")
        try:
            figures += _run(name, seed, options)
        except NoFormerVersion as reason:
            _say(f"{name}: left out: {reason}")
        except AssertionError as error:
            broken.append(name)
            _say(f"{name}: broken off: {error}")
        _say(f"{name}: took {time.monotonic() - began:.0f} s")
    for figure in figures:
        _say(str(figure))
    for name in broken:
        _say(f"{name:<46} MISSED: it was broken off, see above")
    return not broken and all(figure.met for figure in figures)


def _run(name: str, seed: int, options: dict[str, Any]) -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="headwater-drill-"))
    folder.chmod(0o755)  # root's stores run as another account
    with engines.on_own_stores(folder, postgres={}, **CLOCKWORK) as (engine, stores):
        ground = Ground(engine, stores, random.Random(seed), lambda text: _say(f"{name}: {text}"), **options)
        figures = DRILLS[name](ground)
    if all(figure.met for figure in figures):
        shutil.rmtree(folder)
    else:
        _say(f"{name}: logs are in {folder}")
    return figures


def _say(text: str) -> None:
    print(text, flush=True)
