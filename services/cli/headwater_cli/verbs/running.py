"""`down`, `status`, `logs` and `env`: the verbs about a stack that runs in another terminal."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from headwater_cli import home, leftovers, processes, terminal
from headwater_cli.demo import state
from headwater_cli.errors import Failure
from headwater_cli.home import Home

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_EXPORTED = ("api_url", "api_key", "organization_id", "project_id")
_EXPORTED_OF_DEMO = ("endpoint_url", "region", "bucket", "access_key_id", "secret_access_key")
_FOLLOW_SECONDS = 0.2


@app.command()
def down() -> None:
    """Stop the stack that runs in another terminal. Fine if none does."""
    place = home.find()
    stopped = leftovers.down(place)
    terminal.plain(f"Stopped the stack in {place.path}." if stopped else f"No stack runs in {place.path}.")


@app.command()
def status() -> None:
    """What runs, and where. Exit code 1 if no stack is ready."""
    place = home.find()
    holder = home.launcher(place)
    stack = home.read_stack(place)
    if holder is None:
        terminal.plain(f"No stack runs in {place.path}. ./dev up starts one.")
        raise typer.Exit(1)
    state = "ready" if stack is not None else "starting or stopping"
    terminal.head(f"The stack in {place.path} (pid {holder.pid}) is {state}.")
    where = _addresses(stack or {})
    for name, identity in home.recorded_processes(place).items():
        turn = "running" if processes.identify(identity.pid) == identity else "dead"
        terminal.line(name, turn, detail=f"pid {identity.pid:<9} {where.get(name, '')}")
    if stack is None:
        raise typer.Exit(1)


def _addresses(stack: dict[str, Any]) -> dict[str, str]:
    urls = {"api": "api_url", "flower": "flower_url", "postgres": "database_url", "valkey": "redis_url"}
    # Passwords stand between the scheme and the @.
    return {name: str(stack[key]).rpartition("@")[2].partition("?")[0] for name, key in urls.items() if key in stack}


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help="api, worker_interactive, postgres, ...; none: all")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay and print what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines of each.")] = 50,
) -> None:
    """The log of a service, or of all of them with the service's name before each line."""
    files = _log_files(home.find(), service)
    prefix = service is None
    try:
        for file in files:
            for text in file.read_text(errors="replace").splitlines()[-lines:] if lines else ():
                _print_line(file, text, prefix=prefix)
        if follow:
            for file, text in _followed(files):
                _print_line(file, text, prefix=prefix)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _log_files(place: Home, service: str | None) -> list[Path]:
    files = sorted(place.logs.glob("*.log")) if place.logs.is_dir() else []
    if not files:
        raise Failure(f"There are no logs in {place.logs} yet.", hint="./dev up writes them.")
    if service is None:
        return files
    chosen = [file for file in files if file.stem == service]
    if not chosen:
        known = ", ".join(file.stem for file in files)
        raise Failure(f"There is no service {service!r}.", hint=f"There are: {known}.")
    return chosen


def _followed(files: list[Path]) -> Iterator[tuple[Path, str]]:
    opened: dict[Path, IO[str]] = {}
    for file in files:
        opened[file] = file.open(errors="replace")
        opened[file].seek(0, 2)
    while True:
        quiet = True
        for file, stream in opened.items():
            for text in stream:
                quiet = False
                yield file, text.rstrip("\n")
            if file.exists() and file.stat().st_size < stream.tell():  # set aside, and begun anew
                stream.close()
                opened[file] = file.open(errors="replace")
        if quiet:
            time.sleep(_FOLLOW_SECONDS)


def _print_line(file: Path, text: str, *, prefix: bool) -> None:
    typer.echo(f"{file.stem:<20} {text}" if prefix else text)


@app.command()
def env() -> None:
    """Exports for a shell: URL, key, ids and the demo's bucket of the running stack. Use: eval "$(./dev env)"."""
    place = home.find()
    stack = home.read_stack(place)
    if stack is None:
        raise Failure(f"No stack is ready in {place.path}.", hint="./dev up starts one.")
    for name in _EXPORTED:
        # Not the stores' URLs: a later ./dev up in that shell would take them for servers of yours.
        typer.echo(f"export HEADWATER_{name.upper()}={shlex.quote(stack[name])}")
    demo = state.find(place.data / "demo.json")
    for name in _EXPORTED_OF_DEMO if demo is not None else ():
        typer.echo(f"export DEMO_{name.upper()}={shlex.quote(getattr(demo, name))}")
