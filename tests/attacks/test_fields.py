"""Every text field of every type against what attackers write: refused by name, or harmless."""

from typing import Any

import pytest

from headwater.connectors.api import CREDENTIALS_OF
from headwater.errors import FieldError, InvalidRequest
from headwater_api.connectors import checking

from . import attacks, fields
from .fields import SPECS, TextField
from .journeys import is_accepted

PORT = 9

# What no field of ours is called, and what SDKs and drivers take.
OPTIONS = (
    "dsn", "url", "uri", "host", "hostaddr", "proxy", "proxies", "connection_string", "client_options", "config",
    "verify", "ssl_verify", "ca_bundle", "token_uri", "token_url", "universe_domain", "credential_source", "profile",
    "profile_name", "aws_profile", "endpoint", "endpoint_suffix", "account_url", "sts_endpoint", "signature_version",
    "addressing_style", "use_accelerate_endpoint", "headers", "extra", "options", "params", "key_path", "session",
)  # fmt: skip


def validate(field: TextField, value: str) -> Any:
    """As the API does; raises `InvalidRequest`."""
    holding = field.holding(value)
    if field.part == "config":
        return checking.config(field.spec, holding)
    return checking.secrets(field.spec, holding, organization_id=fields.ORGANIZATION_ID)


def refusals(field: TextField, value: str) -> list[FieldError]:
    """Why the API does not take `value`; nothing if it does."""
    try:
        validate(field, value)
    except InvalidRequest as refused:
        return list(refused.errors)
    return []


@pytest.mark.parametrize("field", fields.text_fields(), ids=str)
def test_what_is_refused_is_refused_by_name_and_not_repeated(field: TextField) -> None:
    """An honest value passes; an attack passes too or names its field, and a refused secret shows nowhere."""
    validate(field, field.honest)
    for attack in (*attacks.urls(PORT), *attacks.texts(PORT)):
        errors = refusals(field, attack)
        assert all(error.pointer.startswith(f"/{field.part}") for error in errors)
        assert field.part == "config" or len(attack) < 8 or not any(attack in str(error) for error in errors), attack


@pytest.mark.parametrize("type_", SPECS)
@pytest.mark.parametrize("part", ["config", "credentials"])
def test_what_is_no_field_is_refused_by_name(type_: str, part: fields.Part) -> None:
    """No DSN, no URL, no option of an SDK passes through, at any depth."""
    spec = SPECS[type_]
    model = spec.config if part == "config" else spec.credentials
    base = fields.CONFIGS[type_] if part == "config" else {}
    for option in OPTIONS:
        if option in model.model_fields:
            continue
        with pytest.raises(InvalidRequest) as refused:
            checking.validated(model, base | {option: "http://127.0.0.2/"}, f"/{part}")
        assert [error.pointer for error in refused.value.errors] == [f"/{part}/{option}"]


def test_objects_within_are_closed_too() -> None:
    """An option beside a parameter is refused where it stands."""
    for name, inner in {
        "pagination": {"type": "next_url"},
        "incremental": {"parameter": "a", "cursor_path": "b"},
    }.items():
        config = fields.CONFIGS["api"] | {"record_key": "id", name: inner | {"base_url": "http://127.0.0.2/"}}
        with pytest.raises(InvalidRequest) as refused:
            checking.config(SPECS["api"], config)
        assert refused.value.errors[0].pointer.endswith("/base_url")


def test_every_way_to_authenticate_is_attacked() -> None:
    """The credentials of the suite are those that the types need."""
    needed = {name for names in CREDENTIALS_OF.values() for name in names}
    assert needed == fields.secrets()["api"].keys()


# What would end a host or a path, for each text that becomes a part of one.
BREAKS_OUT = ("a/b", "a.b/", "a@evil", "a#b", "a?b", "a:80", "a\\b", "a b", "a\r\nb", "a%2fb", "", "..", "ä")
PARTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("s3", "region"): (*BREAKS_OUT, "eu.central", "EU-CENTRAL-1", "a" * 41, "mars", "eu-central"),
    ("s3", "bucket"): (*BREAKS_OUT, "-a", "a" * 256, "Capitals", "under_score"),
    ("s3", "role_arn"): (
        *BREAKS_OUT, "arn:aws:iam::1:role/a", "arn:aws:s3:::bucket", "arn:aws:iam::123456789012:user/a",
    ),
    ("s3", "endpoint_url"): ("https://a/b", "https://u@a", "ftp://a", "https://127.1", "a"),
    ("azure_blob", "account"): (*BREAKS_OUT, "a.b", "Capitals", "a-b", "a" * 25),
    ("azure_blob", "container"): (*BREAKS_OUT, "a--b", "Capitals", "a" * 64),
    ("azure_blob", "endpoint_url"): (
        "https://a/b", "https://u@a", "ftp://a", "https://127.1", "a", "https://other.blob.core.windows.net",
    ),
    ("gcs", "bucket"): (*BREAKS_OUT, "-a", "Capitals", "a" * 223),
    ("gcs", "endpoint_url"): ("https://a/b", "https://u@a", "ftp://a", "https://127.1", "a"),
}  # fmt: skip


@pytest.mark.parametrize(("type_", "name"), PARTS)
def test_what_becomes_a_part_of_an_address_has_a_grammar(type_: str, name: str) -> None:
    """None of it reaches an SDK, whatever the way out would refuse."""
    base = {key: value for key, value in fields.CONFIGS[type_].items() if key != name}
    taken = [text for text in PARTS[type_, name] if is_accepted(SPECS[type_], "config", base | {name: text})]
    if name != "endpoint_url":  # where the names are not Amazon's, they break out of nothing either
        base |= {"endpoint_url": "https://store.example"}
        taken += [text for text in BREAKS_OUT if is_accepted(SPECS[type_], "config", base | {name: text})]
    assert taken == []
