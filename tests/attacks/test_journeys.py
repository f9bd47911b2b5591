"""Attacks that the API accepts, on their way through real processes: nothing leaves for where it must not go.

After each wave, nobody has come to a canary, nobody was dialled but the store, and no secret shows anywhere. The
machine is full of other people's settings meanwhile. By default each attack is made against one type, in turn;
`-m long` makes all against all. One test, for starting the processes takes longer than most waves.
"""

import base64
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from engines import CANARY

from . import attacks, fields, journeys
from .besieged import Besieged, Journey
from .fields import CORE
from .journeys import KINDS, STORES, at, with_secrets
from .stub import ALLOWED, DENIED

# Names that are allowed at times: which answer a job gets is chance, and either is right.
_AT_TIMES: Final = ("rebind.example", "late.example")
_NAME_OF: Final = {"s3": "bucket", "gcs": "bucket", "azure_blob": "container"}

Scale = Callable[[Iterable[Journey]], list[Journey]]


def _codes(besieged: Besieged, made: list[Journey]) -> list[tuple[str, set[str | None]]]:
    """Each journey with the codes of what failed on it: of jobs, or of checks; None for a job without failures."""
    return [
        (str(journey), {_failing(job) for job in jobs}) for journey, jobs in zip(made, besieged.go(made), strict=True)
    ]


def _failing(job: dict[str, Any]) -> str | None:
    if job["error"] is not None:
        return str(job["error"]["code"])
    checks = (job["result"] or {}).get("checks", ())
    return next((str(check["code"]) for check in checks if check["status"] == "failed"), None)


def _nobody_is_asked_who_may_not_be(besieged: Besieged, scale: Scale) -> None:
    """Addresses in every spelling, mixed and changing answers, metadata that the operator's list covers."""
    for journey, codes in _codes(besieged, scale(journeys.elsewhere(besieged.port))):
        at_times = {None} if any(name in journey for name in _AT_TIMES) else set()
        assert codes <= {"blocked_target"} | at_times, journey


def _a_text_stays_a_text(besieged: Besieged, scale: Scale) -> None:
    """Header lines, paths, connection strings and key files, wherever the API takes them: no job meets a fault."""
    for journey, codes in _codes(besieged, scale(journeys.everywhere(besieged.port))):
        assert not codes & {"internal_error", "worker_crash", "deadline_exceeded"}, journey


def _a_store_sends_nobody_elsewhere(besieged: Besieged, _: Scale) -> None:
    """Redirects, challenges, regions and links: every job says that it was sent away, and takes nothing there."""
    origin = besieged.field.origin
    ploys = ("sends-away", "sends-across", "sends-to-tls", "asks-for-more", "is-elsewhere")
    made = [
        with_secrets(type_, at(type_, origin) | {name: ploy})._replace(kinds=KINDS[number % 2])
        for type_, name in _NAME_OF.items()
        for number, ploy in enumerate(ploys)
    ]
    for ploy in (*ploys, "links-away", "links-across"):
        config = at("api", f"{origin}/{ploy}") | {"pagination": {"type": "link_header"}}
        made.append(with_secrets("api", config)._replace(kinds=("sync",)))
    for journey, codes in _codes(besieged, made):
        assert not codes & {"internal_error", None}, journey
    # The other origin is one that may be asked: without credentials it was not asked either.
    assert not [asked for asked in besieged.field.asked if asked.path.startswith("/across")]


def _a_files_name_does_not_climb(besieged: Besieged, _: Scale) -> None:
    """Whatever a listing says, what is read lies in the bucket, at the store."""
    besieged.field.keys = (
        "a.jsonl", "../up/a.jsonl", "..", f"http://{DENIED}:{besieged.port}/a.jsonl", f"//{DENIED}/a.jsonl",
        "a.jsonl?evil=1", "a.jsonl#evil", "..\\a.jsonl", "%2e%2e/a.jsonl",
    )  # fmt: skip
    made = [
        with_secrets(type_, at(type_, besieged.field.origin) | {name: "climbing"})._replace(kinds=("sync",))
        for type_, name in _NAME_OF.items()
    ]
    try:
        assert all("internal_error" not in codes for _, codes in _codes(besieged, made))
    finally:
        besieged.field.keys = ("a.jsonl",)
    paths = [asked.path for asked in besieged.field.asked if "climbing" in unquote(asked.path)]
    roots = ("/climbing", "/account1/climbing", "/storage/v1/b/climbing/", "/download/storage/v1/b/climbing/")
    assert len(paths) > len(made)
    assert [path for path in paths if not path.startswith(roots)] == []


def _honest_sources_work(besieged: Besieged, _: Scale) -> None:
    """Odd and legal names, prefixes and passwords arrive as they were written; own redirects and links are followed."""
    prefix, odd = "orders/2026 01/100%+\"ärger'\\../&x=y?#/", f"{CANARY} 100% \"sure\" + 'ärger' §\\密钥"
    secrets = {"s3": {"secret_access_key": odd}, "api": {"password": odd}}
    hosts = ("honest.example", "HONEST.example", "honest.example.", "xn--bcher-kva.example")
    made = []
    for type_, host in zip(STORES, hosts, strict=True):
        config = at(type_, f"http://{host}:{besieged.port}") | ({} if type_ == "api" else {"prefix": prefix})
        made.append(with_secrets(type_, config, **secrets.get(type_, {})))
    for ploy in ("moved-here", "links-on"):
        config = at("api", f"http://honest.example:{besieged.port}/{ploy}") | {"pagination": {"type": "link_header"}}
        made.append(with_secrets("api", config))
    assert [(journey, codes) for journey, codes in _codes(besieged, made) if codes != {None}] == []
    asked = besieged.field.asked
    assert any(parse_qs(urlsplit(each.path).query).get("prefix") == [prefix] for each in asked)
    basic = "Basic " + base64.b64encode(f"{CORE}:{odd}".encode()).decode()
    assert any(each.headers.get("Authorization") == basic for each in asked)
    assert any("page=2" in each.path for each in asked)


def _what_the_api_refuses_it_does_not_repeat(besieged: Besieged, _: Scale) -> None:
    """Each field with an attack that it does not take, through HTTP: 400, whatever the bytes."""
    texts, origin = list(attacks.texts(besieged.port)), besieged.field.origin
    for number, field in enumerate(fields.text_fields()):
        holdings = [field.holding(text) for text in texts]
        refused = [each for each in holdings if not journeys.is_accepted(field.spec, field.part, each)]
        if refused:
            secrets = fields.secrets()[field.type_]
            parts = {"config": at(field.type_, origin), "credentials": secrets} | {
                field.part: refused[number % len(refused)]
            }
            answer = besieged.create(Journey(field.type_, **parts))
            assert (answer.status_code, str(field)) == (400, str(field))


def _what_nobody_can_keep_is_refused(besieged: Besieged, _: Scale) -> None:
    """JSON can hold half a character, which nothing else can, and U+0000, which Postgres cannot."""
    secrets = {"access_key_id": "x", "secret_access_key": "\ud800"}
    assert besieged.create(Journey("s3", fields.CONFIGS["s3"], secrets)).status_code == 400
    for type_ in _NAME_OF:
        prefixed = at(type_, besieged.field.origin) | {"prefix": "x\0"}
        assert besieged.create(with_secrets(type_, prefixed)).status_code == 400


def _a_webhook_reaches_nobody_else(besieged: Besieged, scale: Scale) -> None:
    """The deliverer asks whom a worker may ask; the store it reaches."""
    targets = [url for url in dict.fromkeys(attacks.urls(besieged.port)) if f"{ALLOWED}:{besieged.port}" not in url]
    codes = besieged.deliver([*targets[:: 1 if scale is list else 4], besieged.field.origin])
    assert codes.pop(besieged.field.origin) is None
    bad = {url: code for url, code in codes.items() if code != "blocked_target"}
    assert [url for url in bad if not any(name in url for name in _AT_TIMES)] == []


_WAVES: Final = (
    _nobody_is_asked_who_may_not_be,
    _a_text_stays_a_text,
    _a_store_sends_nobody_elsewhere,
    _a_files_name_does_not_climb,
    _honest_sources_work,
    _what_the_api_refuses_it_does_not_repeat,
    _what_nobody_can_keep_is_refused,
    _a_webhook_reaches_nobody_else,
)


_ALL: Final = pytest.param(list, marks=[pytest.mark.long, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("scale", [journeys.shares, _ALL], ids=["each", "all"])
def test_a_siege_does_no_harm(besieged: Besieged, scale: Scale) -> None:
    """Wave by wave."""
    for wave in _WAVES:
        wave(besieged, scale)
        besieged.require_unharmed()
