"""The JSON Schema that a source's records are held against: compiled alike where it is written and where it is used."""

import json
from typing import Any, Final, TypeAlias

import jsonschema_rs
import orjson

from headwater.errors import FieldError, InvalidRequest

RecordSchema: TypeAlias = dict[str, Any] | bool

LARGEST_BYTES: Final = 256 * 1024


def compiled(schema: RecordSchema) -> jsonschema_rs.Validator:
    """The validator of `schema`; its draft is `$schema`'s, 2020-12 without one. Nothing is ever fetched.

    Raises `jsonschema_rs.ValidationError` for a schema that is none, or that refers to anything outside itself.
    """
    return jsonschema_rs.validator_for(schema, offline=True)


def check(schema: Any, *, pointer: str) -> None:
    """Raise `InvalidRequest` unless `schema` compiles; it stands at `pointer` in the body."""
    if not isinstance(schema, dict | bool):
        raise _invalid(pointer, "A JSON Schema is an object, or true or false.")
    try:
        # NaN and Infinity, which Python's parser lets through, are no JSON; neither is what Postgres gives back and
        # a double cannot hold.
        text = json.dumps(schema, allow_nan=False)
        orjson.loads(text)
        size = len(text)
        compiled(schema)
    except jsonschema_rs.ValidationError as error:
        raise InvalidRequest(errors=[_refusal(error, pointer)]) from None
    except (ValueError, RecursionError):
        raise _invalid(pointer, "This schema is nested too deeply, or holds numbers that are none.") from None
    if size > LARGEST_BYTES:
        raise _invalid(pointer, f"This schema is larger than {LARGEST_BYTES} bytes.")


def _invalid(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[FieldError(pointer, "invalid_schema", detail)])


def _refusal(error: jsonschema_rs.ValidationError, pointer: str) -> FieldError:
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Referencing):
        detail = "A reference leads nowhere: it may point into the schema itself or to a draft's meta-schema."
        return FieldError(pointer, "unresolvable_reference", detail)
    place = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
    return FieldError(pointer + place, "invalid_schema", "This is not what JSON Schema allows here.")
