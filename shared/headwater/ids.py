"""Identifiers: UUID version 7 inside, TypeIDs on the wire.

A TypeID is `<prefix>_<26 characters>`: the UUID's 128 bits in Crockford's base32, lower case, most significant
first (https://github.com/jetify-com/typeid, specification 0.3).
"""

from typing import Final, Literal
from uuid import UUID

from uuid_utils import compat

from headwater.errors import NotFound

Prefix = Literal[
    "org", "user", "key", "proj", "dsrc", "job", "item", "rej", "evt", "aud", "pipe", "dest", "hook", "dlv"
]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
# Ten bits at a time: thirteen look-ups a TypeID instead of twenty-six.
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
# To Python's digits of that base, and to what is none.
_DIGITS: Final = dict.fromkeys(range(128), "!") | str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_SUFFIX_LENGTH: Final = 26


def new() -> UUID:
    """A fresh UUID version 7: ordered by time of creation within one process."""
    return compat.uuid7()


def encode(prefix: Prefix, value: UUID) -> str:
    """`value` as a TypeID with `prefix`."""
    number = value.int
    return prefix + "_" + "".join(_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10))


def decode(prefix: Prefix, text: str) -> UUID:
    """The UUID inside the TypeID `text`. Raises `NotFound` if it is malformed or of another kind."""
    kind, _, suffix = text.rpartition("_")
    if kind != prefix or len(suffix) != _SUFFIX_LENGTH or suffix[0] > "7" or not suffix.isascii():
        raise NotFound
    try:
        return UUID(int=int(suffix.translate(_DIGITS), len(_ALPHABET)))
    except ValueError:
        raise NotFound from None


def pack(high: int, low: int) -> UUID:
    """Two non-negative 63-bit numbers as one UUID; an item's id is its load and its record number, packed."""
    return UUID(int=high << 64 | low)


def unpack(value: UUID) -> tuple[int, int]:
    """The two numbers that `pack` put together."""
    return value.int >> 64, value.int & 0xFFFF_FFFF_FFFF_FFFF
