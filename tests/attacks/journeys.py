"""Attacks that the API accepts, as sources to make and jobs to run."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

from headwater.connectors.spec import ConnectorSpec
from headwater.errors import InvalidRequest
from headwater_api.connectors import checking

from . import attacks, fields
from .besieged import Journey
from .fields import SPECS, Part, TextField
from .stub import ALLOWED

_ORIGINS: Final = ("endpoint", "endpoint_url")
# Types with a field that says whom to ask.
STORES: Final = [type_ for type_, spec in SPECS.items() if not set(_ORIGINS).isdisjoint(spec.config.model_fields)]

KINDS: Final = (("test",), ("sync",), ("files",))

_AUTH: Final = {"api_key": "api_key", "token": "bearer", "username": "basic", "password": "basic"}


def shares(journeys: Iterable[Journey]) -> list[Journey]:
    """Of journeys that are the same for every type, each type's share: each attack is made once, by one kind of job."""
    by_type: dict[str, list[Journey]] = {}
    for journey in journeys:
        by_type.setdefault(journey.type_, []).append(journey)
    chosen = itertools.chain.from_iterable(
        share[number :: len(by_type)] for number, share in enumerate(by_type.values())
    )
    return [journey._replace(kinds=kinds) for journey, kinds in zip(chosen, itertools.cycle(KINDS), strict=False)]


def at(type_: str, origin: str) -> dict[str, Any]:
    """A config of this type that asks there, if it asks anybody."""
    config = fields.CONFIGS[type_]
    if type_ == "api":
        return config | {"endpoint": origin}
    return config | {"endpoint_url": origin} if type_ in STORES else config


def with_secrets(type_: str, config: dict[str, Any], **changes: str) -> Journey:
    """A journey with `config` and the credentials that go with it, `changes` among them."""
    secrets = fields.secrets()[type_] | changes
    if type_ != "api":
        return Journey(type_, config, secrets)
    auth = config.get("auth_type") or _AUTH[next(iter(changes), "password")]
    kept = {name: value for name, value in secrets.items() if _AUTH[name] == auth}
    return Journey(type_, config | {"auth_type": auth}, kept)


def is_accepted(spec: ConnectorSpec, part: Part, value: dict[str, Any]) -> bool:
    """Whether the API takes it."""
    try:
        if part == "config":
            checking.config(spec, value)
        else:
            checking.secrets(spec, value, organization_id=fields.ORGANIZATION_ID)
    except InvalidRequest:
        return False
    return True


def elsewhere(port: int) -> Iterator[Journey]:
    """To every host that nobody may ask, in every spelling that the API takes."""
    for type_ in STORES:
        for url in dict.fromkeys(attacks.urls(port)):
            config = at(type_, url)
            if is_accepted(SPECS[type_], "config", config) and not url.startswith(f"http://{ALLOWED}:{port}"):
                yield with_secrets(type_, config)


def everywhere(port: int) -> Iterator[Journey]:
    """To the store that may be asked, with each text in all the fields that take it beside one another."""
    every = fields.text_fields()
    for type_ in SPECS:
        mine = [field for field in every if field.type_ == type_ and field.path[-1] not in _ORIGINS]
        # What is no Unicode, or what Postgres cannot hold, does not get past the reader of the body.
        texts = (text for text in attacks.texts(port) if "\ud800" not in text and "\0" not in text)
        for number, text in enumerate(texts):
            turn = number % len(mine)
            yield _in_fields(type_, at(type_, f"http://{ALLOWED}:{port}"), mine[turn:] + mine[:turn], text)


def _in_fields(type_: str, config: dict[str, Any], mine: list[TextField], text: str) -> Journey:
    spec, secrets = SPECS[type_], {}
    for field in mine:
        holding = field.holding(text)
        if field.part == "credentials":
            if is_accepted(spec, "credentials", holding) and (type_ != "api" or not secrets):
                secrets |= holding
        elif field.path[0] not in config:
            tried = config | {name: value for name, value in holding.items() if name not in fields.CONFIGS[type_]}
            config = tried if is_accepted(spec, "config", tried) else config
    # The config says by `auth_type` which secrets it takes.
    return with_secrets(type_, config, **({} if "auth_type" in config else secrets))
