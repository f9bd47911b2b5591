"""`Content-Range` of a request that brings a part of a file (RFC 9110, sections 14.4 and 14.5)."""

import re
from dataclasses import dataclass
from typing import Final

from headwater.errors import FieldError, InvalidRequest

_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)/([0-9]{1,15})")


@dataclass(frozen=True)
class ContentRange:
    """Bytes `start` up to, not including, `end` of `total`; both None: how much is there?"""

    start: int | None
    end: int | None
    total: int


def parse(header: str) -> ContentRange:
    """`bytes 0-99/1000` or `bytes */1000`. Raises `InvalidRequest` naming the header."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        raise _invalid("Use `bytes <first>-<last>/<size>`, or `bytes */<size>` to ask how much is there.")
    first, last, total = found.groups()
    if first is None:
        return ContentRange(None, None, int(total))
    if not int(first) <= int(last) < int(total):
        raise _invalid("The last byte comes behind the first one, and before the end of the file.")
    return ContentRange(int(first), int(last) + 1, int(total))


def _invalid(detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[FieldError("Content-Range", "invalid_range", detail)])
