"""What Postgres cannot keep as `jsonb`, found before the COPY that would fail on it.

That is: the character U+0000, half of a surrogate pair, a number beyond `numeric`, more than 500 levels, 16 MiB.
"""

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from headwater_worker.sync.formats.base import LARGEST_RECORD_BYTES

CODE: Final = "not_storable"
TOO_LARGE: Final = "The record is larger than 16 MiB."
TOO_DEEP: Final = "The record is nested deeper than 500 levels."
_NUL: Final = "The record holds the character U+0000."
_SURROGATE: Final = "The record holds half of a surrogate pair (U+D800 to U+DFFF)."
_NUMBER: Final = "The record holds a number that is too large or has too many digits."

_DEEPEST: Final = 500
# numeric: 131,072 digits before the point, 16,383 after it.
_INTEGER_DIGITS: Final = 131_072
_FRACTION_DIGITS: Final = 16_383

# Rare enough that each hit is worth a closer look.
_ODD_NUMBER: Final = re.compile(rb"[0-9][eE][-+]?[0-9]{4}|[0-9]{16000}")
# `[eE]-[0-9]{4}`, led by the byte that is looked for at a quarter of the cost.
_TINY_NUMBER: Final = re.compile(rb"-(?<=[eE]-)[0-9]{4}")
# Shorter records can be neither 500 levels deep nor hold a number with too many digits.
SHALLOW_BYTES: Final = 1_000
_FEW_DIGITS_BYTES: Final = 16_000
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NUMBERS: Final = re.compile(rb"-?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def is_suspect(data: bytes) -> bool:
    """Whether records in this JSON text, each read by `orjson`, are worth `problem`; a cheap look at many at once.

    `orjson` itself refuses lone surrogates and numbers that are too large; `is_odd` looks at each record's size.
    """
    return _may_hold_nul(data) or _TINY_NUMBER.search(data) is not None


def may_hold_nul(raws: Iterable[bytes]) -> bool:
    """Whether there may be the character U+0000 in one of these JSON texts."""
    return _may_hold_nul(b"\n".join(raws))


def _may_hold_nul(data: bytes) -> bool:
    # To look for a single byte is next to nothing.
    return b"\\" in data and b"\\u0000" in data


def is_odd(raw: bytes) -> bool:
    """A cheap look at one record: is it large or deep enough to be worth `problem`?"""
    return len(raw) > SHALLOW_BYTES and (len(raw) > _FEW_DIGITS_BYTES or _may_be_deep(raw))


def _may_be_deep(raw: bytes) -> bool:
    return raw.count(b"[") + raw.count(b"{") > _DEEPEST


def problem(raw: bytes, value: Any) -> str | None:
    """What of the record (its JSON text and its value) Postgres cannot keep, in a sentence; None if it can."""
    if len(raw) > LARGEST_RECORD_BYTES:
        return TOO_LARGE
    if _may_be_deep(raw) and _depth(raw) > _DEEPEST:
        return TOO_DEEP
    if b"\\u" in raw:
        return _text_problem(value) or _number_problem(raw)
    return _number_problem(raw)


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for byte in _STRING.sub(b"", raw):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _text_problem(value: Any) -> str | None:
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            if "\0" in part:
                return _NUL
            if not part.isascii() and _SURROGATES.search(part):
                return _SURROGATE
        elif isinstance(part, dict):
            stack.extend(part)
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)
    return None


def _number_problem(raw: bytes) -> str | None:
    if not _ODD_NUMBER.search(raw):
        return None
    return _NUMBER if any(map(_beyond_numeric, _NUMBERS.findall(_STRING.sub(b'""', raw)))) else None


def _beyond_numeric(token: bytes) -> bool:
    mantissa, _, exponent = token.lower().partition(b"e")
    if len(exponent) > 7:
        return True
    if not exponent and len(mantissa) < 16_000:
        return False
    try:
        number = Decimal(token.decode())
    except InvalidOperation:
        return True
    shift = number.as_tuple().exponent
    assert isinstance(shift, int)
    return -shift > _FRACTION_DIGITS or (number != 0 and number.adjusted() >= _INTEGER_DIGITS)
