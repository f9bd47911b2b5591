"""An HTTP API with records, in pages, for whoever bears the token."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from headwater_cli.demo import serving
from headwater_cli.demo.serving import Answer, Request

PATH: Final = "/v1/passengers"
PAGE_SIZE: Final = 100

_LARGEST_PAGE: Final = 500


def records(lines: bytes) -> list[dict[str, Any]]:
    """The records of a JSONL file, each with an `id`, its number in the file."""
    return [{"id": number, **json.loads(line)} for number, line in enumerate(lines.splitlines(), 1)]


@contextmanager
def serve(port: int, *, token: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Serve `rows`, ordered by `id`, at `PATH` of the origin that this gives. Raises OSError when the port is taken.

    `?limit` is the size of a page (at most 500), `?cursor` what the page before named as `next_cursor`; on the last
    page that is null.
    """

    def answer(request: Request) -> Answer:
        if not secrets.compare_digest(request.bearer.encode(), token.encode()):
            return serving.as_json({"error": "unauthorized"}, 401, **{"WWW-Authenticate": "Bearer"})
        if request.method != "GET" or request.path != PATH:
            return serving.as_json({"error": "not_found"}, 404)
        return _page(request.query, rows)

    with serving.serve(port, answer) as origin:
        yield origin


def _page(query: dict[str, str], rows: Sequence[dict[str, Any]]) -> Answer:
    limit, cursor = query.get("limit", str(PAGE_SIZE)), query.get("cursor", "0")
    if not (limit.isdecimal() and 1 <= int(limit) <= _LARGEST_PAGE and cursor.isdecimal()):
        return serving.as_json({"error": "invalid_query"}, 400)
    end = int(cursor) + int(limit)
    following = str(end) if end < len(rows) else None
    return serving.as_json({"data": list(rows[int(cursor) : end]), "next_cursor": following})
