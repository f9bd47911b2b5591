"""A source's JSON Schema, compiled once, and what it says about a record in words of ours."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NoReturn
from urllib.parse import quote

import jsonschema_rs

from headwater.data_sources.record_schema import RecordSchema
from headwater.errors import JobError
from headwater_worker.sync.formats.table import Table

CODE: Final = "schema_mismatch"
_LONGEST_MESSAGE: Final = 300
_LONGEST_POINTER: Final = 300
# Most of what a small record costs is the call. Few enough that one bad record in a hundred spoils one in six.
_TOGETHER: Final = 16
_RECORD: Final = "urn:headwater:record"
# What says no more of an object than which members it has and what each of them is by itself; and what says nothing.
_OF_MEMBERS: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "$schema", "$defs", "definitions"}
    | {"$comment", "title", "description", "default", "examples"}
)
# All of them are passed by for each column.
_MOST_PROPERTIES: Final = 100
# Where a schema holds one of these anywhere, what a part of it says may depend on how one came there.
_BY_CONTEXT: Final = re.compile(r'"\$(?:id|anchor|dynamic\w+|recursive\w+)": |"id": "')


class Schema:
    """A compiled schema. `is_valid(value)` first; `explain(value)` only for what is not."""

    def __init__(self, schema: RecordSchema) -> None:
        """Raises `JobError` (`config_invalid`) if it is no JSON Schema, or points outside itself."""
        try:
            # `mask`: a message never quotes the record. `offline`: a schema sends this worker nowhere.
            self._validator = jsonschema_rs.validator_for(schema, validate_formats=True, mask="the value", offline=True)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise JobError(
                "The source's `validation.schema` cannot be used as a JSON Schema.",
                code="config_invalid",
                hint="Correct the schema. References must stay within the schema itself.",
            ) from error
        self.is_valid: Callable[[Any], bool] = self._validator.is_valid
        self._are_all_valid = _of_many(schema)
        self._schema = schema

    def which(self, values: Sequence[Any]) -> list[bool]:
        """`is_valid` of each, in fewer calls."""
        if self._are_all_valid is None:
            return [*map(self.is_valid, values)]
        answers: list[bool] = []
        for at in range(0, len(values), _TOGETHER):
            some = list(values[at : at + _TOGETHER])
            answers += [True] * len(some) if self._are_all_valid(some) else map(self.is_valid, some)
        return answers

    def which_of(self, table: Table) -> list[bool]:
        """`which` of the records' values, by column where that is the same."""
        if self._columns is None or not self._columns.decide(table.names):
            return self.which(table.values())
        valid = [True] * len(table)
        for name, cells in zip(table.names, table.columns, strict=True):
            for at in self._columns.refused(name, cells):
                valid[at] = False
        return valid

    @cached_property
    def _columns(self) -> "_Columns | None":
        if isinstance(self._schema, bool) or not _is_of_members(self._schema):
            return None
        properties = self._schema.get("properties", {})
        parts = {
            name: {"type": "array", "items": {"$ref": f"{_RECORD}#/properties/{quote(_escaped(name), safe='')}"}}
            for name in properties
        }
        are_valid = _beside(self._schema, {"properties": parts})
        return None if are_valid is None else _Columns(self._schema, are_valid)

    def explain(self, value: Any) -> tuple[str, str]:
        """Where the record first breaks the schema, as a JSON Pointer, and how."""
        error = next(self._validator.iter_errors(value))
        pointer = "".join(f"/{_escaped(step)}" for step in error.instance_path)
        message = error.message[:_LONGEST_MESSAGE].replace("\0", "\ufffd")
        return pointer[:_LONGEST_POINTER].replace("\0", "\ufffd"), message[:1].upper() + message[1:] + "."


class _Columns:
    """A schema that says of a record no more than which members it has, and what each of them is.

    `are_valid`: whether each value of each list is, of an object with a list for each member.
    """

    def __init__(self, schema: Mapping[str, Any], are_valid: Callable[[Any], bool]) -> None:
        self._properties: Collection[str] = schema.get("properties", {}).keys()
        self._required = frozenset(schema.get("required", ()))
        self._is_open = schema.get("additionalProperties", True)
        self._are_valid = are_valid

    def decide(self, names: Sequence[str]) -> bool:
        """Whether records with these members are valid if each of them is."""
        return self._required.issubset(names) and (self._is_open or all(name in self._properties for name in names))

    def refused(self, name: str, cells: Sequence[Any]) -> list[int]:
        """Which values of a member are not valid."""
        if name not in self._properties or self._are_valid({name: cells}):
            return []
        begins = range(0, len(cells), _TOGETHER)
        odd = [begin for begin in begins if not self._are_valid({name: cells[begin : begin + _TOGETHER]})]
        return [
            at
            for begin in odd
            for at, cell in enumerate(cells[begin : begin + _TOGETHER], begin)
            if not self._are_valid({name: [cell]})
        ]


def _is_of_members(schema: Mapping[str, Any]) -> bool:
    return (
        schema.keys() <= _OF_MEMBERS
        and "object" in schema.get("type", "object")
        and isinstance(schema.get("additionalProperties", True), bool)
        and len(schema.get("properties", ())) <= _MOST_PROPERTIES
        and not _BY_CONTEXT.search(json.dumps(schema))
    )


def _of_many(schema: RecordSchema) -> Callable[[Any], bool] | None:
    """Whether all values of a list are valid; None for a schema that nothing can refer to."""
    return _beside(schema, {"type": "array", "items": {"$ref": _RECORD}})


def _beside(schema: RecordSchema, other: Mapping[str, Any]) -> Callable[[Any], bool] | None:
    """Whether values are valid by `other`, which refers to `schema` as `_RECORD`; None where nothing can.

    The schema is a document of its own there too: what it refers to within itself is found in it as before.
    """
    dialect = {"$schema": schema["$schema"]} if isinstance(schema, dict) and "$schema" in schema else {}
    try:
        documents = jsonschema_rs.Registry([(_RECORD, schema)], retriever=_fetch_nothing)
        return jsonschema_rs.validator_for(
            {**dialect, **other}, registry=documents, validate_formats=True, offline=True
        ).is_valid
    except (ValueError, jsonschema_rs.ReferencingError):
        return None


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(uri)


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
