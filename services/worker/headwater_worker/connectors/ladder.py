"""The ladder of a connection test: its steps in order, each within a time of its own, until one fails.

`Way` has the steps that all network sources share, from the name to TLS; each connector adds its own behind them.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from headwater.errors import ConnectorError, HeadwaterError, Transient
from headwater_worker import egress
from headwater_worker.connectors.base import CheckWarning, Connector, Skipped, Step, StepName
from headwater_worker.egress import Address, Policy

STEP_NAMES: Final[tuple[StepName, ...]] = get_args(StepName)

TEST_SECONDS: Final = 20.0
"""All steps together: well inside the job's deadline of 25 s."""
STEP_SECONDS: Final = 8.0
"""One step. Steps have shorter times of their own; this one holds against a server that sends a byte a second."""

_RESOLVE_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0
_TLS_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.5

_PASSED: Final[dict[StepName, str]] = {
    "config": "Config and credentials are complete.",
    "resolve": "The host name was found.",
    "egress": "The worker may connect to the host.",
    "connect": "The host accepts connections.",
    "tls": "The host's certificate is valid.",
    "authenticate": "The credentials are accepted.",
    "target": "The target exists.",
    "list": "What it holds can be listed.",
    "read": "A sample of it can be read.",
}

Status = Literal["passed", "failed", "warning", "skipped"]


@dataclass(frozen=True)
class Origin:
    """Where a source answers."""

    host: str
    port: int


class Way:
    """The steps to one origin: `resolve`, `egress`, `connect` and, with `tls`, `tls`.

    `origin` is asked when the first step runs and may raise `ConnectorError`. Each step uses what the one before it
    found: the addresses that were checked are those that are dialled.
    """

    def __init__(self, origin: Callable[[], Origin], *, tls: bool, policy: Policy) -> None:
        self._find_origin = origin
        self._tls = tls
        self._policy = policy
        self._origin = Origin("", 0)
        self._addresses: Sequence[Address] = ()
        self._connection: socket.socket | None = None

    def steps(self) -> tuple[Step, ...]:
        """The four steps, in order."""
        return (
            Step("resolve", self._resolve),
            Step("egress", self._permit),
            Step("connect", self._connect),
            Step("tls", self._shake if self._tls else None),
        )

    def close(self) -> None:
        """Let go of the connection that no step took over."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _resolve(self) -> None:
        self._origin = self._find_origin()
        self._addresses = egress.resolve(self._origin.host, self._origin.port, timeout_seconds=_RESOLVE_SECONDS)

    def _permit(self) -> None:
        egress.require_permitted(self._origin.host, self._addresses, self._policy)

    def _connect(self) -> None:
        self._connection = egress.connect(self._addresses, self._origin.port, _CONNECT_SECONDS)
        if not self._tls:
            self.close()

    def _shake(self) -> None:
        assert self._connection is not None
        connection, self._connection = self._connection, None
        egress.handshake(connection, self._origin.host, timeout_seconds=_TLS_SECONDS).close()


@dataclass(frozen=True)
class Check:
    """How one step went."""

    name: StepName
    status: Status
    code: str | None = None
    message: str | None = None
    hint: str | None = None
    duration_ms: int = 0

    def as_json(self) -> dict[str, Any]:
        """The check of the REST contract."""
        return {
            "name": self.name,
            "status": self.status,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "duration_ms": self.duration_ms,
        }


def run(
    connector: Connector, *, seconds: float = TEST_SECONDS, checkpoint: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Climb the ladder of an open `connector` within `seconds`; the result of the REST contract.

    A step that fails, transiently or not, is a failed check. `checkpoint` is called at least every half second;
    what it raises is let through. Anything but a `ConnectorError` out of a step is a defect, and let through too.
    """
    began = time.monotonic()
    deadline = began + min(seconds, TEST_SECONDS)
    checks: list[Check] = []
    # Its thread is left alone when a step does not come back; the proxy's end cuts its connections.
    climber = ThreadPoolExecutor(1, thread_name_prefix="ladder")
    try:
        for step in _whole(connector.steps()):
            if step.run is None or any(check.status == "failed" for check in checks):
                checks.append(Check(step.name, "skipped"))
                continue
            within = max(0.0, min(STEP_SECONDS, deadline - time.monotonic()))
            checks.append(_climb(climber, step.name, step.run, within, checkpoint))
    finally:
        climber.shutdown(wait=False, cancel_futures=True)
    return _result(checks, time.monotonic() - began)


def refused(error: HeadwaterError) -> dict[str, Any]:
    """The result when the source could not even be opened: `config` failed with `error`, the rest skipped."""
    first = Check("config", "failed", error.code, error.message, error.hint)
    return _result([first, *(Check(name, "skipped") for name in STEP_NAMES[1:])], 0.0)


def _whole(steps: Sequence[Step]) -> Iterator[Step]:
    """`steps` with `config` in front: opening the source was that step, whatever the connector adds to it."""
    config = next((step.run for step in steps if step.name == "config" and step.run is not None), None)
    yield Step("config", config or (lambda: None))
    yield from (step for step in steps if step.name != "config")


def _climb(
    climber: ThreadPoolExecutor,
    name: StepName,
    step: Callable[[], CheckWarning | Skipped | None],
    seconds: float,
    checkpoint: Callable[[], None],
) -> Check:
    began = time.monotonic()
    try:
        outcome = _await(climber.submit(step), began + seconds, checkpoint)
    except ConnectorError as error:
        return Check(name, "failed", error.code, error.message, error.hint, _milliseconds(began))
    match outcome:
        case CheckWarning():
            return Check(name, "warning", outcome.code, outcome.message, outcome.hint, _milliseconds(began))
        case Skipped():
            return Check(name, "skipped", duration_ms=_milliseconds(began))
        case None:
            return Check(name, "passed", message=_PASSED[name], duration_ms=_milliseconds(began))


def _await(
    climbing: "Future[CheckWarning | Skipped | None]", deadline: float, checkpoint: Callable[[], None]
) -> CheckWarning | Skipped | None:
    while not climbing.done():
        checkpoint()
        left = deadline - time.monotonic()
        if left <= 0:
            raise Transient(
                "The source did not answer in time.",
                code="timeout",
                hint="Check host and port, and that the source is not overloaded.",
            )
        wait([climbing], timeout=min(left, _POLL_SECONDS))
    return climbing.result()


def _milliseconds(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _result(checks: Sequence[Check], seconds: float) -> dict[str, Any]:
    failed = next((check for check in checks if check.status == "failed"), None)
    warning = next((check for check in checks if check.status == "warning"), None)
    telling = failed or warning
    return {
        "success": failed is None,
        "message": telling.message if telling else "The connection works.",
        "latency_ms": round(seconds * 1000),
        "checks": [check.as_json() for check in checks],
    }
