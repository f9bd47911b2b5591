"""What the gate lets through, and that it is always the same."""

import json
from pathlib import Path
from typing import Any

import attacking
import pytest

from headwater import ids
from headwater_worker import gate

JOB = ids.encode("job", ids.new())


def raw(message: Any) -> bytes:
    """As it lies in Redis."""
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def untagged(message: bytes | None) -> dict[str, Any]:
    """What was let through, without the tag that each has for itself."""
    assert message is not None
    found: dict[str, Any] = json.loads(message)
    assert len(found["properties"].pop("delivery_tag")) == 32
    return found


@pytest.mark.parametrize(
    "message", [pytest.param(message, id=name) for name, message in attacking.messages(JOB, Path("touched")).items()]
)
def test_what_is_no_ring_is_refused_once(message: Any) -> None:
    """And counted under one reason."""
    gate.REFUSALS.take()
    assert gate.ring("interactive", raw(message)) is None
    assert sum(gate.REFUSALS.take().values()) == 1


@pytest.mark.parametrize(
    "message", [pytest.param(message, id=name) for name, message in attacking.options(JOB).items()]
)
def test_a_ring_is_written_anew(message: Any) -> None:
    """From task and job alone, whatever else it said."""
    plain = attacking.envelope([[JOB], {}, {}])
    assert untagged(gate.ring("interactive", raw(message))) == untagged(gate.ring("interactive", raw(plain)))


def test_no_command_passes_but_questions() -> None:
    """And these without their words."""
    refused = [gate.command(raw(attacking.envelope(body))) for body in attacking.commands(JOB, "interactive@here")]
    assert refused == [None] * len(refused)
    let_through = [gate.command(raw(attacking.envelope(body))) for body in attacking.questions()]
    assert len(let_through) == len([*filter(None, let_through)])
    assert b"taskinfoitems" not in b"".join(filter(None, let_through))
