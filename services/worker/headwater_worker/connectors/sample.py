"""Looking at the beginning of a file in a connection test."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from headwater.errors import Permanent
from headwater_worker.connectors.base import CheckWarning, OpenFile
from headwater_worker.sync.formats import choice
from headwater_worker.sync.formats.base import Options, Refusal, Source, Unreadable

_BYTES: Final = 1024
_HEADER_BYTES: Final = 64 * 1024
_HINT: Final = "Correct the file, or the `format` of the config."


def check(open_file: Callable[[], OpenFile], named: str | None) -> CheckWarning | None:
    """Read the beginning of a file; where the config says that files are CSV, as a sync would, header and all.

    Raises `ConnectorError`; `Permanent` (`invalid_csv` and its siblings) for a file that no sync can use.
    """
    if named == "csv":
        return _check_csv(open_file)
    with open_file() as file:
        file.stream.read(_BYTES)
    return None


def _check_csv(open_file: Callable[[], OpenFile]) -> CheckWarning | None:
    options = Options()
    with open_file() as file:
        format_ = choice.format_of(file.entry.path, "csv")
        blocks = format_.blocks(Source(file.stream), options)
        try:
            # An error in what was looked at comes behind the records before it: here, behind none.
            entries = next((block.entries for block in blocks if block.entries), [])
        except Unreadable as error:
            raise Permanent(f"The first file is no CSV: {error.message}", code=error.code, hint=_HINT) from error
    first = entries[0] if entries else None
    if isinstance(first, Refusal) and all(isinstance(entry, Refusal) for entry in entries):
        raise Permanent(f"No record fits the header: {first.message}", code=first.code, hint=_HINT)
    return None if format_.is_packed else _check_header(open_file, options.details["csv"])


def _check_header(open_file: Callable[[], OpenFile], read_as: dict[str, Any]) -> CheckWarning | None:
    with open_file() as file:
        head = file.stream.read(_HEADER_BYTES)
    text = io.StringIO(head.decode(read_as["encoding"], "replace"), newline="")
    names = [name.strip() for name in next(filter(None, csv.reader(text, delimiter=read_as["delimiter"] or ",")), [])]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not repeated and all(names):
        return None
    return CheckWarning(
        "odd_header",
        "The header of the first file has empty or repeated names; its columns are numbered to tell them apart.",
        "Name every column once, or set `reading.csv.header` to false if there is no header.",
    )
