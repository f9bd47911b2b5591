"""One list in three forms: JSON in pages, NDJSON and CSV as a stream of everything. The `Accept` header chooses.

A stream is made of batches, so that it runs in the same space however long it is.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import orjson
from starlette.requests import Request

Form: TypeAlias = Literal["json", "ndjson", "csv"]

MEDIA_TYPES: Final[dict[Form, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
}
_FORMS: Final[dict[str, Form]] = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
    "application/json": "json",
    "application/*": "json",
    "*/*": "json",
}

DOCUMENTED: Final[dict[str, Any]] = {
    "application/x-ndjson": {"schema": {"type": "string", "description": "One entry a line; all of them."}},
    "text/csv": {"schema": {"type": "string", "description": "A header line, then one entry a line; all of them."}},
}
"""For `responses={200: {"content": ...}}` of a route that streams."""


def chosen(request: Request) -> Form:
    """The form that `Accept` prefers (RFC 9110, section 12.5.1); JSON where it says nothing that we know."""
    best: Form = "json"
    weight = 0.0
    for entry in request.headers.get("Accept", "").split(","):
        name, _, parameters = entry.strip().lower().partition(";")
        form, quality = _FORMS.get(name.strip()), _quality(parameters)
        if form is not None and quality > weight:
            best, weight = form, quality
    return best


def ndjson(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """`entries` as lines of JSON."""
    return b"".join(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in entries)


def csv_rows(rows: Iterable[Sequence[Any]]) -> bytes:
    """`rows` as lines of CSV (RFC 4180); None is empty; maps, lists and JSON fragments are JSON."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | orjson.Fragment):
        return orjson.dumps(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
