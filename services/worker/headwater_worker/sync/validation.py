"""A source's JSON Schema, compiled once, and what it says about a record in words of ours."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import jsonschema_rs

from headwater.data_sources.record_schema import RecordSchema
from headwater.errors import JobError

CODE: Final = "schema_mismatch"
_LONGEST_MESSAGE: Final = 300
_LONGEST_POINTER: Final = 300
# Most of what a small record costs is the call. Few enough that one bad record in a hundred spoils one in six.
_TOGETHER: Final = 16
_RECORD: Final = "urn:headwater:record"


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

    def which(self, values: Sequence[Any]) -> list[bool]:
        """`is_valid` of each, in fewer calls."""
        if self._are_all_valid is None:
            return [*map(self.is_valid, values)]
        answers: list[bool] = []
        for at in range(0, len(values), _TOGETHER):
            some = list(values[at : at + _TOGETHER])
            answers += [True] * len(some) if self._are_all_valid(some) else map(self.is_valid, some)
        return answers

    def explain(self, value: Any) -> tuple[str, str]:
        """Where the record first breaks the schema, as a JSON Pointer, and how."""
        error = next(self._validator.iter_errors(value))
        pointer = "".join(f"/{_escaped(step)}" for step in error.instance_path)
        message = error.message[:_LONGEST_MESSAGE].replace("\0", "\ufffd")
        return pointer[:_LONGEST_POINTER].replace("\0", "\ufffd"), message[:1].upper() + message[1:] + "."


def _of_many(schema: RecordSchema) -> Callable[[Any], bool] | None:
    """Whether all values of a list are valid; None for a schema that nothing can refer to.

    The schema is a document of its own there too: what it refers to within itself is found in it as before.
    """
    dialect = {"$schema": schema["$schema"]} if isinstance(schema, dict) and "$schema" in schema else {}
    many = dialect | {"type": "array", "items": {"$ref": _RECORD}}
    try:
        documents = jsonschema_rs.Registry([(_RECORD, schema)], retriever=_fetch_nothing)
        return jsonschema_rs.validator_for(many, registry=documents, validate_formats=True, offline=True).is_valid
    except (ValueError, jsonschema_rs.ReferencingError):
        return None


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(uri)


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
