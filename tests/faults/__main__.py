"""`./dev faults`: the long run. `./dev faults matrix`: every row. `./dev faults mutants`: what the tests notice.

`./dev faults drills`: how long it takes until jobs go on, beside the goals.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "plugins")]

import mutants  # noqa: E402 - it stands beside
import storm  # noqa: E402 - it imports what stands there
from drills import running  # noqa: E402 - as does this


def main() -> int:
    """The exit code: 0 if every goal was met."""
    parser = argparse.ArgumentParser(prog="./dev faults", description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    long_run = verbs.add_parser("run", help="thousands of jobs under random faults (the default)")
    for each in (parser, long_run):
        each.add_argument("--jobs", type=int, default=20_000)
        each.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    verbs.add_parser("matrix", help="every fault at every moment; arguments go to pytest")
    seeded = verbs.add_parser("mutants", help="seeded mistakes, and whether their tests notice them")
    seeded.add_argument("names", nargs="*", help="parts of the names of those to try; all without")
    verbs.add_parser("drills", add_help=False, help="how long it takes until jobs go on, beside the goals")
    arguments, rest = parser.parse_known_args()
    if arguments.verb == "matrix":
        argv = [sys.executable, "-m", "pytest", "tests/faults", "-m", "long or not long", "--timeout", "300", *rest]
        return subprocess.run(argv, check=False).returncode
    if arguments.verb == "drills":
        return running.main(rest)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    if arguments.verb == "mutants":
        return 0 if mutants.try_all(Path.cwd(), arguments.names, _say) else 1
    return _storm(arguments.jobs, arguments.seed)


def _storm(jobs: int, seed: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="headwater-faults-"))
    folder.chmod(0o755)  # root's stores run as another account
    met = storm.run(jobs, seed, folder, _say)
    if met:
        shutil.rmtree(folder)
    return 0 if met else 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
