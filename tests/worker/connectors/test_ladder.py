"""The ladder: which checks a test shows, whatever the steps do."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from headwater.connectors.spec import ConnectorConfig
from headwater.errors import CancelRequested, Permanent, Transient
from headwater_worker.connectors import ladder
from headwater_worker.connectors.base import CheckWarning, Connector, Opening, Skipped, Step
from headwater_worker.egress import Policy, Proxy


class Scripted(Connector):
    """A connector with the steps that it is given."""

    type = "scripted"

    def __init__(self, *steps: Step) -> None:
        policy = Policy()
        super().__init__(Opening(ConnectorConfig(), {}, policy, Proxy(policy)))
        self._steps = steps

    def steps(self) -> Sequence[Step]:
        return self._steps


def _fail() -> None:
    raise Permanent("No.", code="permission_denied", hint="Ask.")


def _hang_until(released: threading.Event) -> Step:
    def wait() -> None:
        released.wait(30)

    return Step("list", wait)


def _statuses(result: dict[str, object]) -> list[tuple[str, str]]:
    checks = result["checks"]
    assert isinstance(checks, list)
    return [(check["name"], check["status"]) for check in checks]


def test_nothing_is_tried_behind_a_failure() -> None:
    """The rest is skipped, and the failure's words are the result's."""
    tried: list[str] = []
    result = ladder.run(Scripted(Step("list", _fail), Step("read", lambda: tried.append("read"))))
    assert _statuses(result) == [("config", "passed"), ("list", "failed"), ("read", "skipped")]
    assert tried == []
    assert (result["success"], result["message"]) == (False, "No.")
    assert result["checks"][1]["hint"] == "Ask."


def test_a_transient_failure_is_a_failed_check() -> None:
    """A test does not try again: it says what it found."""

    def busy() -> None:
        raise Transient(code="throttled")

    result = ladder.run(Scripted(Step("list", busy)))
    assert (result["success"], result["checks"][1]["code"]) == (False, "throttled")


def test_a_warning_is_no_failure() -> None:
    """It is said, and the ladder goes on."""
    warning = CheckWarning("empty_scope", "Nothing here.")
    result = ladder.run(Scripted(Step("list", lambda: warning), Step("read", Skipped)))
    assert _statuses(result) == [("config", "passed"), ("list", "warning"), ("read", "skipped")]
    assert (result["success"], result["message"]) == (True, "Nothing here.")


def test_a_step_that_does_not_apply_is_skipped() -> None:
    """And what comes behind it is tried."""
    result = ladder.run(Scripted(Step("tls", None), Step("list", lambda: None)))
    assert _statuses(result) == [("config", "passed"), ("tls", "skipped"), ("list", "passed")]


def test_opening_is_the_config_check() -> None:
    """A connector may add to it, not take it away; it stands first."""
    assert _statuses(ladder.run(Scripted(Step("config", None)))) == [("config", "passed")]
    assert _statuses(ladder.run(Scripted(Step("config", _fail)))) == [("config", "failed")]


def test_a_source_that_cannot_be_opened_fails_at_config() -> None:
    """Every other check is there and skipped."""
    result = ladder.refused(Permanent(code="config_invalid"))
    assert _statuses(result) == [(name, "failed" if name == "config" else "skipped") for name in ladder.STEP_NAMES]
    assert (result["success"], result["checks"][0]["code"]) == (False, "config_invalid")


def test_a_step_that_does_not_come_back_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own time is up: `timeout`, and the ladder ends."""
    monkeypatch.setattr(ladder, "STEP_SECONDS", 0.2)
    released = threading.Event()
    began = time.monotonic()
    result = ladder.run(Scripted(_hang_until(released), Step("read", _fail)))
    took = time.monotonic() - began
    released.set()
    assert _statuses(result) == [("config", "passed"), ("list", "failed"), ("read", "skipped")]
    assert result["checks"][1]["code"] == "timeout"
    assert took < 2


def test_all_steps_together_end_in_time() -> None:
    """Many slow steps share what the test has."""
    released = threading.Event()

    def slow() -> None:
        released.wait(0.3)

    steps = [Step("list", slow) for _ in range(20)]
    began = time.monotonic()
    result = ladder.run(Scripted(*steps), seconds=1.0)
    assert time.monotonic() - began < 2
    assert result["success"] is False
    released.set()


def test_an_interruption_is_let_through() -> None:
    """Also while a step hangs."""
    released = threading.Event()
    calls: list[None] = []

    def checkpoint() -> None:
        calls.append(None)
        if len(calls) > 1:
            raise CancelRequested

    with pytest.raises(CancelRequested):
        ladder.run(Scripted(_hang_until(released)), checkpoint=checkpoint)
    released.set()


def test_a_defect_is_no_failed_check() -> None:
    """What is no `ConnectorError` is ours to mend, and not shown as the source's fault."""

    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ladder.run(Scripted(Step("list", defect)))


def test_handlers_load_neither_an_sdk_nor_pytest() -> None:
    """A worker's parent loads the handlers before it forks."""
    program = (
        "import sys, headwater_worker.handlers.connection_test, headwater_worker.handlers.file_listing;"
        "print([name for name in ('botocore', 'boto3', 'pytest', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
