"""`up` and `reset`: the verbs that hold the local stack themselves."""

import shutil
from typing import Annotated

import typer

from headwater_cli import home, leftovers, places, stack, terminal
from headwater_cli.errors import Failure

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def up(
    demo: Annotated[bool, typer.Option(help="Start the demo's bucket and fill the demo project.")] = True,
) -> None:
    """Start everything here and keep it running until Ctrl-C.

    HEADWATER_DATABASE_URL and HEADWATER_REDIS_URL, where set, are used instead of the embedded stores.
    """
    stack.up(home.find(), demo=demo)


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete the local data, logs and keys. A database of your own (HEADWATER_DATABASE_URL) is not touched."""
    place = home.find()
    if not place.path.is_dir():
        terminal.plain(f"There is nothing in {place.path}.")
        return
    holder = home.launcher(place)
    if holder is not None:
        raise Failure(f"The stack runs (pid {holder.pid}).", hint="./dev down stops it.")
    if not yes and not typer.confirm(f"Delete all data, logs and keys in {place.path}?", default=False):
        raise Failure("Nothing was deleted.")
    with home.locked(place):
        leftovers.clear(place)
        for name in ("postgres", "valkey"):
            places.forget(place.data / name)
        for folder in (place.data, place.logs, place.keys, place.cache, place.empty):
            shutil.rmtree(folder, ignore_errors=True)
    terminal.plain(f"Deleted the data, logs and keys in {place.path}.")
