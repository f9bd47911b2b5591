"""What a CSV cell becomes where the schema names another type than string for its column.

A cell that cannot be converted stays a string, and validation says no to it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from headwater_worker.sync.formats import table

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER_TEXT: Final = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_NUMBER: Final = re.compile(_NUMBER_TEXT)
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_SPELLINGS: Final = _BOOLEANS | {name: name.lower() == "true" for name in ("True", "False", "TRUE", "FALSE")}
# A column at once, a cell a line. Possessive: they never go back.
_INTEGERS: Final = re.compile(r"(?:[+-]?[0-9]{1,4000}+\n)*+")
_NUMBERS: Final = re.compile(rf"(?:{_NUMBER_TEXT}\n)*+")
_NO_INTEGER: Final = re.compile(r"[.eE]")
_INFINITE: Final = float("inf")
_WHOLE: Final = frozenset({int})
_NUMERIC: Final = frozenset({int, float})
_LARGE: Final = 2**63


@dataclass(frozen=True)
class Cell:
    """How the cells of a column are converted, by the types that its schema allows."""

    nullable: bool
    textual: bool
    whole: bool
    fractional: bool
    logical: bool

    def one(self, cell: str) -> Any:
        """A cell's value."""
        if not cell and self.nullable:
            return None
        if self.textual:
            return cell
        text = cell.strip()
        if self.whole and _INTEGER.fullmatch(text):
            return int(text)
        if self.fractional and _NUMBER.fullmatch(text):
            number = float(text)
            return number if abs(number) != _INFINITE else cell
        return _BOOLEANS.get(text.lower(), cell) if self.logical else cell

    def each(self, cells: Sequence[str]) -> tuple[Sequence[Any], Sequence[str]]:
        """`one` of each cell, quicker where all are of one kind, and their JSON texts.

        Raises `TypeError` and `ValueError` where that went wrong.
        """
        if self.whole and not self.textual and (found := self._numbers(cells)):
            return found
        values = self._values(cells)
        return values, table.scalars(values)

    def _numbers(self, cells: Sequence[str]) -> tuple[Sequence[Any], Sequence[str]] | None:
        """As `each` for numbers that are written as in JSON; None for others."""
        text = f"[{','.join(cells)}]"
        try:
            values = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        # A cell with a comma would be two.
        if len(values) != len(cells) or not {*map(type, values)} <= (_NUMERIC if self.fractional else _WHOLE):
            return None
        written = orjson.dumps(values).decode()
        if written == text:
            return values, cells
        # What JSON takes in other ways than `one`: longer exponents, and integers beyond 64 bits as floats.
        if "e" in text or "E" in text or not -_LARGE < min(values) <= max(values) < _LARGE:
            return None
        return values, written[1:-1].split(",")

    def _values(self, cells: Sequence[str]) -> Sequence[Any]:
        if self.textual:
            return [*map(self.one, cells)]
        if not self.whole:
            values = [*map(_SPELLINGS.get, cells)] if self.logical else [None]
            return [*map(self.one, cells)] if None in values else values
        text = "\n".join(cells) + "\n"
        if _INTEGERS.fullmatch(text):
            return [*map(int, cells)]
        if self.fractional and _NUMBERS.fullmatch(text):
            if text.count(".") == len(cells):
                numbers: list[float] = [*map(float, cells)]
            else:
                numbers = [float(cell) if _NO_INTEGER.search(cell) else int(cell) for cell in cells]
            if _INFINITE not in numbers and -_INFINITE not in numbers:
                return numbers
        return [*map(self.one, cells)]


def conversions(names: Sequence[str], schema: Mapping[str, Any] | None) -> dict[str, Cell]:
    """For each column that the schema gives a type beside string: how its cells are converted."""
    properties = (schema or {}).get("properties")
    if not isinstance(properties, Mapping):
        return {}
    found = ((name, _cell(_types(properties.get(name), schema or {}))) for name in names)
    return {name: cell for name, cell in found if cell is not None}


def _types(part: Any, schema: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The types that a subschema allows, as far as it says so plainly."""
    if not isinstance(part, Mapping) or depth > 8:
        return frozenset()
    named = part.get("type")
    if named is not None:
        return frozenset([named] if isinstance(named, str) else named)
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = schema
        for step in reference[2:].split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        return _types(target, schema, depth + 1)
    choices = part.get("anyOf") or part.get("oneOf") or []
    return frozenset().union(*(_types(choice, schema, depth + 1) for choice in choices))


def _cell(types: frozenset[str]) -> Cell | None:
    if not types or types == {"string"}:
        return None
    return Cell(
        nullable="null" in types,
        textual="string" in types,
        whole="integer" in types or "number" in types,
        fractional="number" in types,
        logical="boolean" in types,
    )
