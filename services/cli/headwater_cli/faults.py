"""Which code each fault comes to at each source: the table of docs/connection-tests.md, from what suites observed.

    HEADWATER_CONFORMANCE_REPORT=/tmp/faults python -m pytest tests/worker/connectors -k Conformance
    python -m headwater_cli.faults /tmp/faults docs/connection-tests.md

Without a page the table is printed: for the suite of an outside connector.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

BEGIN: Final = "<!-- faults: written by `python -m headwater_cli.faults` -->\n"
END: Final = "<!-- end of faults -->\n"

# The ladder's order; what is no step of it (opening a file) comes behind.
_CHECKS: Final = ("config", "resolve", "egress", "connect", "tls", "authenticate", "target", "list", "read", "")
_BETWEEN: Final = re.compile(rf"{re.escape(BEGIN)}(.*?){re.escape(END)}", re.DOTALL)


class Observation(NamedTuple):
    """At `source`, `fault` was told as `code` by `check`; an empty check is none of the ladder's."""

    source: str
    fault: str
    check: str
    code: str


def read_report(report: Path) -> set[Observation]:
    """What suites wrote: a line of JSON for each observation."""
    return {Observation(**json.loads(line)) for line in report.read_text(encoding="utf-8").splitlines()}


def table(observations: Iterable[Observation]) -> str:
    """Markdown: a row for each fault in the ladder's order, a column for each source."""
    found = set(observations)
    sources = sorted({each.source for each in found})
    faults = sorted({(_CHECKS.index(each.check), each.fault) for each in found})
    lines = [["fault", "check", *(f"`{source}`" for source in sources)], ["---"] * (len(sources) + 2)]
    for position, fault in faults:
        check = _CHECKS[position]
        codes = [
            ", ".join(sorted(f"`{each.code}`" for each in found if each[:3] == (source, fault, check)))
            for source in sources
        ]
        lines.append([fault, f"`{check}`" if check else "", *codes])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def read_table(page: str) -> set[Observation]:
    """What the table of a page says."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (_BETWEEN.search(page) or [""] * 2)[1].splitlines()
    ]
    if len(rows) < 2:
        return set()
    sources = [cell.strip("`") for cell in rows[0][2:]]
    return {
        Observation(source, fault, check.strip("`"), code)
        for fault, check, *cells in rows[2:]
        for source, cell in zip(sources, cells, strict=True)
        for code in re.findall(r"`(\w+)`", cell)
    }


def replaced(page: str, observations: Iterable[Observation]) -> str:
    """`page` with new columns for the sources that were observed; those of others stay.

    Raises:
        ValueError: the page has no place for the table.
    """
    if not _BETWEEN.search(page):
        raise ValueError(f"the page lacks {BEGIN.strip()} or {END.strip()}")
    found = set(observations)
    seen = {each.source for each in found}
    kept = {each for each in read_table(page) if each.source not in seen}
    text = BEGIN + table(found | kept) + END
    return _BETWEEN.sub(lambda _: text, page)


def main(report: Path, page: Path | None = None) -> None:
    """Print the table of a report, or write it into a page."""
    found = read_report(report)
    if page is None:
        print(table(found), end="")
    else:
        page.write_text(replaced(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
