"""What the commands print: one line per fact, readable without colour and in a file."""

from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.text import Text

from headwater_cli.errors import Failure
from headwater_cli.supervisor import Report, Turn

_OUT: Final = Console(highlight=False, soft_wrap=True)
_ERROR: Final = Console(stderr=True, highlight=False, soft_wrap=True)
_NAME_WIDTH: Final = 20
_TURN_WIDTH: Final = 12
_STYLES: Final = {
    "ready": "green",
    "ready again": "green",
    "died": "yellow",
    "given up": "bold red",
    "left out": "yellow",
    "not filled": "yellow",
}


def head(text: str) -> None:
    """A line about the whole."""
    _OUT.print(Text(text, style="bold"))


def plain(text: str) -> None:
    """`text` as it is, for programs as much as for people."""
    _OUT.print(text, markup=False)


def line(name: str, turn: str, *, seconds: float | None = None, detail: str = "") -> None:
    """A line about one service or step."""
    took = "" if seconds is None else f"{seconds:.1f} s"
    _OUT.print(
        Text.assemble(
            f"  {name:<{_NAME_WIDTH}}",
            (f"{turn:<{_TURN_WIDTH}}", _STYLES.get(turn, "")),
            f"{took:>6}   {detail}".rstrip(),
        )
    )


def report(found: Report) -> None:
    """A line about a turn of a service, as the supervisor reports it."""
    detail = found.detail
    seconds = found.seconds
    if found.turn is Turn.DIED:
        line(found.service, found.turn, detail=f"{detail}; starting it again")
    elif found.turn is Turn.LEFT_OUT:
        line(found.service, found.turn, detail=detail)
    elif found.turn is Turn.GIVEN_UP:
        line(found.service, found.turn, detail=detail)
        _OUT.print(
            Text(
                f"  {found.service} is NOT started again. Its log: ./dev logs {found.service}. "
                "Then Ctrl-C and ./dev up.",
                style="bold red",
            )
        )
    else:
        line(found.service, found.turn, seconds=seconds, detail=detail)


def demo(text: str) -> None:
    """A line of progress of the demo's filling."""
    line("demo", "", detail=text)


def welcome(addresses: Mapping[str, str]) -> None:
    """Where things are, and what to do next."""
    _OUT.print()
    for name, value in addresses.items():
        _OUT.print(Text.assemble((f"  {name:<12}", "bold"), value))
    _OUT.print()
    _OUT.print("  Next, in another terminal:   ./dev api GET /data-sources", markup=False)
    _OUT.print("  Ctrl-C stops everything; the data stay.", markup=False)
    _OUT.print()


def failure(found: Failure) -> None:
    """What went wrong, on stderr."""
    _ERROR.print(Text.assemble(("Error: ", "bold red"), found.message))
    if found.hint:
        _ERROR.print(Text(found.hint))


def verbs(found: Mapping[str, str]) -> None:
    """The help of the whole."""
    _OUT.print(Text("Headwater, on this machine.", style="bold"))
    _OUT.print("Usage: ./dev VERB [ARGUMENTS]      ./dev VERB --help tells more\n", markup=False)
    for verb, what in found.items():
        _OUT.print(Text.assemble((f"  {verb:<10}", "bold"), what))


def note(text: str) -> None:
    """A line of progress on stderr, where it is in no program's way."""
    _ERROR.print(Text(text, style="dim"))
