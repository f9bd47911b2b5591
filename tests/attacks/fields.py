"""Every text that a config or credentials can hold, found in the specs' own schemas: none can be forgotten."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import engines
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from headwater import ids
from headwater.connectors import registry
from headwater.connectors.gcs import ServiceAccount
from headwater.connectors.spec import ConnectorSpec

ORGANIZATION_ID: Final = ids.new()
"""Whose fields are checked; it may use no references."""
CANARY: Final = engines.CANARY
CORE: Final = re.split(r"\W", CANARY)[0]
"""The part of the canary by which it is found. In base64 it is four blocks of its own: a key of an account."""

SPECS: Final[Mapping[str, ConnectorSpec]] = {
    name: spec for name, spec in registry.specs().items() if spec.config.__module__.startswith("headwater.")
}
"""The types that come with Headwater."""

Part = Literal["config", "credentials"]
Path = tuple[str, ...]

SIGNATURE: Final = f"sv=2026-01-01&sp=rl&se=2099-01-01T00:00:00Z&sig={CORE}%2B"
"""A shared access signature."""
_ROLE: Final = "arn:aws:iam::123456789012:role/reader"
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "api": {"endpoint": "https://honest.example/v1/items"},
    "azure_blob": {"container": "the-container", "account": "account1"},
    "file_upload": {},
    "gcs": {"bucket": "the-bucket"},
    "local_files": {"path": "/data"},
    "s3": {"bucket": "the-bucket", "region": "eu-central-1"},
}
_BESIDE: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("api", "header_name"): {"auth_type": "api_key"},
    ("api", "incremental"): {"record_key": "id"},
    ("s3", "external_id"): {"role_arn": _ROLE},
}
"""What a field needs beside it to be accepted at all."""
_HONEST: Final[dict[str, str]] = {
    "auth_type": "basic", "cursor_path": "meta.next", "endpoint_url": "https://store.example:8443",
    "external_id": "ours-42", "header_name": "X-Shop-Key", "headers": "X-Tenant", "path": "/data/orders",
    "prefix": "orders/2026 01/100%+\"ärger\"/", "record_key": "id", "records_path": "data.items", "role_arn": _ROLE,
    "size_parameter": "limit", "allowed_extensions": "csv.gz", "format": "date",
}  # fmt: skip


@cache
def key_file() -> str:
    """The key file of a service account, with the canary for the id of its key."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ServiceAccount("reader@project-1.iam.gserviceaccount.com", key.decode(), CORE, "project-1").as_json()


def secrets() -> dict[str, dict[str, str]]:
    """Credentials of each type, the canary in all of them."""
    return {
        "api": {"api_key": CORE, "token": CORE, "username": CORE, "password": CANARY},
        "azure_blob": {"account_key": CORE},
        "file_upload": {},
        "gcs": {"service_account_json": key_file()},
        "local_files": {},
        "s3": {"access_key_id": f"AKIA{CORE}", "secret_access_key": CANARY, "session_token": CORE},
    }


@dataclass(frozen=True)
class TextField:
    """One text; `path` leads to it, `*` to the name and `+` to the value of a map's entry, `-` to a list's."""

    type_: str
    part: Part
    path: Path
    schema: str
    beside: str

    def __str__(self) -> str:
        return f"{self.type_}.{self.part}.{'.'.join(self.path)}"

    @property
    def spec(self) -> ConnectorSpec:
        """Of its type."""
        return SPECS[self.type_]

    @property
    def honest(self) -> str:
        """A value that is good."""
        if self.part == "credentials":
            return (secrets()[self.type_] | {"sas_token": SIGNATURE})[self.path[0]]
        found = json.loads(self.schema)
        fixed = [found[key] for key in ("const", "default") if isinstance(found.get(key), str) and found[key]]
        name = next(part for part in reversed(self.path) if part not in "*+-")
        return str(next(iter([*found.get("examples", ()), *fixed, *found.get("enum", ())]), None) or _HONEST[name])

    def holding(self, value: str) -> dict[str, Any]:
        """The config or the credentials with `value` in this field, and what must stand beside it."""
        if self.part == "credentials":
            return {self.path[0]: value}
        top = _BESIDE.get((self.type_, self.path[0]), {})
        beside = json.loads(self.beside) | ({"size": 10} if self.path[-1] == "size_parameter" else {})
        return CONFIGS[self.type_] | top | _put({}, self.path, value, beside)


def _put(into: dict[str, Any], path: Path, value: str, beside: dict[str, Any]) -> dict[str, Any]:
    """`into` with `value` at the end of `path`; an object on the way has what `beside` says it needs."""
    name, *rest = path
    if not rest:
        return into | {name: value}
    match rest[0]:
        case "*":
            return into | {name: {value: "x"}}
        case "+":
            return into | {name: {"X-Tenant": value}}
        case "-":
            return into | {name: [value]}
    return into | {name: _put(dict(beside), tuple(rest), value, {})}


def text_fields() -> list[TextField]:
    """All of them, of every type."""
    return [
        found
        for type_, spec in SPECS.items()
        for part, model in (("config", spec.config), ("credentials", spec.credentials))
        for found in _walk(type_, part, (), model.model_json_schema(), model.model_json_schema(), {})  # type: ignore[arg-type]
    ]


def _walk(
    type_: str, part: Part, path: Path, schema: dict[str, Any], root: dict[str, Any], beside: dict[str, Any]
) -> Iterator[TextField]:
    where = (type_, part)
    if "$ref" in schema:
        yield from _walk(*where, path, root["$defs"][schema["$ref"].rpartition("/")[2]], root, beside)
    for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        told = {key: schema[key] for key in ("default", "examples") if key in schema}
        yield from _walk(*where, path, each if "$ref" in each else told | each, root, beside)
    match schema.get("type"):
        case "string":
            yield TextField(type_, part, path, json.dumps(schema), json.dumps(beside))
        case "array":
            yield from _walk(*where, (*path, "-"), schema["items"], root, beside)
        case "object":
            needed = _needed(schema, root)
            for name, each in schema.get("properties", {}).items():
                yield from _walk(*where, (*path, name), each, root, needed)
            if isinstance(schema.get("additionalProperties"), dict):
                yield TextField(type_, part, (*path, "*"), '{"type": "string"}', json.dumps(beside))
                yield from _walk(*where, (*path, "+"), schema["additionalProperties"], root, beside)


def _needed(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """What an object below the top must have: its kind, and examples of what it requires."""
    if schema is root:
        return {}
    properties = schema.get("properties", {})
    fixed = {name: each["const"] for name, each in properties.items() if "const" in each}
    return {name: properties[name]["examples"][0] for name in schema.get("required", ()) if name not in fixed} | fixed
