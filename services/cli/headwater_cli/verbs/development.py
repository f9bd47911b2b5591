"""`test`, `check`, `faults`, `bench`, `fmt`, `migrate` and `lock`: the verbs for people who change the code."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import typer

from headwater_cli import benches, checks, home, locks, outside, terminal, typescript
from headwater_cli import migrate as migrations
from headwater_cli.errors import Failure

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

# Every argument belongs to the program behind the verb, its --help too.
_PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_PASS_ON)
def test(context: typer.Context) -> None:
    """The tests; arguments go to pytest."""
    raise typer.Exit(_run("-m", "pytest", *context.args))


@app.command(context_settings=_PASS_ON)
def faults(context: typer.Context) -> None:
    """What the job engine promises, under faults: docs/faults.md."""
    raise typer.Exit(_run("tests/faults", *context.args))


@app.command(context_settings=_PASS_ON)
def bench(context: typer.Context) -> None:
    """The benchmarks: docs/performance.md. Installs what they compare with, the first time."""
    benches.install(home.checkout())
    raise typer.Exit(_run("-m", "bench", *context.args))


def _run(*arguments: str) -> int:
    """Run Python with these arguments in the checkout, on this terminal. Returns its exit code."""
    with subprocess.Popen((sys.executable, *arguments), cwd=home.checkout()) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal sent it to the child too, which says what there is to say
                continue


@app.command()
def check() -> None:
    """Format, lint, imports, types, lock files: a line for each, then what the failed ones say."""
    failed = []
    for found in checks.run(home.checkout()):
        terminal.line(found.name, "passed" if found.passed else "failed", seconds=found.seconds)
        failed += [] if found.passed else [found]
    for found in failed:
        terminal.head(f"\n{found.name}")
        terminal.plain(found.output)
    if failed:
        raise Failure(f"{len(failed)} of the checks failed: {', '.join(found.name for found in failed)}.")


@app.command()
def fmt() -> None:
    """Format the code, and mend what the linter can mend."""
    ruff, checkout = Path(sys.executable).with_name("ruff"), home.checkout()
    codes = [
        subprocess.run((str(ruff), *arguments), cwd=checkout, check=False).returncode
        for arguments in (("check", "--fix", "--quiet", "."), ("format", "."))
    ]
    raise typer.Exit(max(codes))


@app.command()
def lock() -> None:
    """Compile the lock files anew. Pins that still fit stay as they are."""
    terminal.note("Resolving (a minute, when nothing is cached)")
    for name in locks.compile_all(home.checkout()):
        terminal.plain(f"  {name}")
    for folder in typescript.LOCKED:
        typescript.compile_lock(home.checkout() / folder)
        terminal.plain(f"  {folder}/package-lock.json")


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this code: HEADWATER_DATABASE_URL, or the running stack's."""
    url = os.environ.get("HEADWATER_DATABASE_URL")
    if url is None:
        stack = home.read_stack(home.find())
        if stack is None:
            raise Failure("No stack is ready here.", hint="./dev up migrates by itself, or set HEADWATER_DATABASE_URL.")
        url = str(stack["database_url"])
    else:
        outside.require_postgres(url)
    migrations.upgrade(url)
    terminal.plain(f"The database at {outside.address(url)} has the schema of this code.")
