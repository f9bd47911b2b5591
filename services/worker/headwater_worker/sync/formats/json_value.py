"""One JSON value that `orjson` refused: not JSON, or JSON beyond what `orjson` takes?"""

import json
from typing import Any, Final, NoReturn

from headwater_worker.sync import storable
from headwater_worker.sync.formats.base import Record, Refusal, excerpt

CODE: Final = "invalid_json"
# `int` refuses to read longer ones.
_LONGEST_INTEGER: Final = 4_000


def second_look(raw: bytes, line: int) -> Record | Refusal:
    """The record after all (a number beyond double precision), or why not. NaN and Infinity are not JSON."""
    try:
        return line, raw, _decoder.decode(raw.decode())
    except UnicodeDecodeError:
        return Refusal(line, CODE, "Not valid JSON: the bytes are not UTF-8. Save the file as UTF-8.", excerpt(raw))
    except json.JSONDecodeError as error:
        return Refusal(line, CODE, f"Not valid JSON at character {error.pos + 1}.", excerpt(raw))
    except RecursionError:
        return Refusal(line, storable.CODE, storable.TOO_DEEP, excerpt(raw))
    except _NotJson:
        return Refusal(line, CODE, "Not valid JSON: NaN and Infinity are not JSON.", excerpt(raw))


class _NotJson(ValueError):
    """A constant that only Python's dialect knows."""


def _refuse_constant(_: str) -> NoReturn:
    raise _NotJson


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


_decoder: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)
