"""A source's JSON Schema, compiled once, and what it says about a record in words of ours."""

from collections.abc import Callable
from typing import Any, Final

import jsonschema_rs

from headwater.data_sources.record_schema import RecordSchema
from headwater.errors import JobError

CODE: Final = "schema_mismatch"
_LONGEST_MESSAGE: Final = 300
_LONGEST_POINTER: Final = 300


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

    def explain(self, value: Any) -> tuple[str, str]:
        """Where the record first breaks the schema, as a JSON Pointer, and how."""
        error = next(self._validator.iter_errors(value))
        pointer = "".join(f"/{_escaped(step)}" for step in error.instance_path)
        message = error.message[:_LONGEST_MESSAGE].replace("\0", "\ufffd")
        return pointer[:_LONGEST_POINTER].replace("\0", "\ufffd"), message[:1].upper() + message[1:] + "."


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
