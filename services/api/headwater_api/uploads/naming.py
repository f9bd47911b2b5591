"""Names of uploaded files. They are shown, sorted and compared, and never become a path of ours."""

import unicodedata
from typing import Final

from headwater.errors import FieldError, InvalidRequest

LONGEST: Final = 255  # bytes of UTF-8, as in most file systems
# Control characters, halves of surrogate pairs, and the separators that are no blanks.
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# They make a name look like another one.
_REORDERING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check(name: str) -> None:
    """Raise `InvalidRequest` naming `name`, unless a file may be called that."""
    if not name or len(name.encode("utf-8", "replace")) > LONGEST:
        raise _refused("invalid_length", f"A name has 1 to {LONGEST} bytes.")
    if any(unicodedata.category(character) in _REFUSED or character in _REORDERING for character in name):
        raise _refused("invalid_character", "A name holds no control characters.")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise _refused("invalid_character", "A name is a name, not a path: without / and \\.")
    if name != name.strip():
        raise _refused("invalid_character", "A name neither begins nor ends with a blank.")


def _refused(code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[FieldError("name", code, detail)])
