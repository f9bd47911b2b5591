"""Grammar of what is sent in a header."""

import re
from typing import Final

from pydantic import SecretStr

_VISIBLE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")


def is_visible(text: str) -> bool:
    """Whether `text` can be the value of a header: visible ASCII, blanks only within. A line end starts another one."""
    return _VISIBLE.fullmatch(text) is not None


def check_secret(value: SecretStr | None) -> SecretStr | None:
    """`value`, if a header can carry it. Raises `ValueError`, which does not repeat it."""
    if value is not None and not is_visible(value.get_secret_value()):
        raise ValueError("must be of visible ASCII characters, without a line end")
    return value


def check_no_control(value: SecretStr | None) -> SecretStr | None:
    """`value`, if it holds no control characters. Raises `ValueError`, which does not repeat it."""
    if value is not None and any(character < " " or character == "\x7f" for character in value.get_secret_value()):
        raise ValueError("must not hold control characters")
    return value
