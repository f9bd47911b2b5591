"""API, scheduler, workers and deliverer under attack: how they are asked, and what must hold when all is over."""

import base64
import functools
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import invariants
from engines import FINAL, Engine, Process

from headwater import ids

from .attacks import NAMES
from .fields import CANARY, CORE
from .stub import ALLOWED, Field

_HOSTS: Final = {ALLOWED, *(name for name, answers in NAMES.items() if [ALLOWED] in answers)}
_LIVE: Final = "select from job where status <> all(%s)"
_UNDELIVERED: Final = "select from webhook_delivery where attempt = 0 or status = 'delivering'"


class Journey(NamedTuple):
    """A source as its users describe it, and the kinds of job that are asked for."""

    type_: str
    config: dict[str, Any]
    credentials: dict[str, str]
    kinds: tuple[str, ...] = ("test", "sync")

    def __str__(self) -> str:
        return f"{self.type_} {json.dumps(self.config)[:200]}"


@dataclass
class Besieged:
    """`field` is what sources point at; `dialled` is where processes write down whom they dial."""

    engine: Engine
    field: Field
    dialled: Path
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Of the store and of the canaries."""
        return self.field.port

    @functools.cached_property
    def started(self) -> bool:
        """Everything runs from here on."""
        self.engine.api()
        self.engine.scheduler()
        self.engine.worker("interactive", slots=1)
        self.engine.worker("bulk", slots=1)
        self.engine.deliverer()
        self.engine.client.event_hooks["response"].append(self._heard)
        return True

    @property
    def project(self) -> str:
        """The path of a project's sources."""
        assert self.started
        return f"projects/{ids.encode('proj', self.engine.project_id)}/data-sources"

    def _heard(self, response: Any) -> None:
        response.read()
        self.said.append(response.text)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the API; the body as ASCII, so that it can hold what is no Unicode."""
        headers = {"Content-Type": "application/json"}
        return self.engine.client.post(path, content=json.dumps(body), headers=headers)

    def create(self, journey: Journey) -> Any:
        """Ask for the source; the answer."""
        return self.post(
            self.project,
            {
                "name": ids.new().hex,
                "type": journey.type_,
                "config": journey.config,
                "credentials": journey.credentials or None,
            },
        )

    def go(self, journeys: list[Journey]) -> list[list[dict[str, Any]]]:
        """Make all of these sources and run their jobs to the end; for each journey its jobs as the API shows them."""
        asked: list[list[str]] = []
        for journey in journeys:
            created = self.create(journey)
            assert created.status_code == 201, f"{journey}: {created.text}"
            source = f"{self.project}/{created.json()['id']}"
            asked.append([self.post(f"{source}/{kind}", {}).json()["id"] for kind in journey.kinds])
        self.engine.until(lambda: self.engine.one(_LIVE, list(FINAL)) is None, 300)
        return [[self.engine.client.get(f"jobs/{job_id}").json() for job_id in job_ids] for job_ids in asked]

    def deliver(self, urls: list[str]) -> dict[str, str | None]:
        """Make webhooks of those that the API takes, have each tested, and remove them; what came of each."""
        assert self.started
        client, made = self.engine.client, {}
        for url in urls:
            answer = self.post("webhooks", {"url": url, "event_types": ["job.failed"]})
            assert answer.status_code in (201, 400), url
            if answer.status_code == 201:
                made[url] = f"webhooks/{answer.json()['id']}"
                assert self.post(f"{made[url]}/test", {}).status_code in (200, 202)
        self.engine.until(lambda: self.engine.one(_UNDELIVERED) is None, 120)
        codes = {url: client.get(f"{hook}/deliveries").json()["data"][0]["error_code"] for url, hook in made.items()}
        for hook in made.values():
            client.delete(hook)
        return codes

    def require_unharmed(self) -> None:
        """Nobody came to a canary or was dialled but the store; no secret shows in any sink; no process had a fault."""
        assert (self.field.hits(), set(self.dialled.read_text().split())) == (0, {ALLOWED})
        for asked in self.field.asked:
            assert not [name for name in asked.headers if name.lower().startswith("x-evil")]
            assert asked.headers["Host"].lower().partition(":")[0].rstrip(".") in _HOSTS
        assert not [text for text in self.said if _shows(text)]
        for process in self.engine.processes:
            assert not [shown for shown in _surroundings(process) if _shows(shown)], process.service
        self.engine.settled()
        invariants.check(self.engine)


def _surroundings(process: Process) -> list[str]:
    """Arguments and environment of a process and its children, as far as this user may read them."""
    found = []
    for pid in [process.pid, *process.children()]:
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/{name}").read_text(errors="replace"))
    return found


def _shows(text: str) -> bool:
    return any(spelling in text for spelling in (CORE, CORE.encode().hex(), base64.b64encode(CANARY.encode()).decode()))
