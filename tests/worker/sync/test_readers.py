"""Readers: what they cannot do, and what becomes of a sync whose readers die."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from headwater_worker.sync import fetching, messages, readers
from headwater_worker.sync.answers import ODD, Told
from headwater_worker.sync.formats.base import Block, Refusal
from headwater_worker.sync.judging import Judge
from headwater_worker.sync.messages import Done, Garbled

from .conftest import readers_now

_PROBE = """
import os, resource, socket
from headwater_worker.sync import reader
reader.lock_in()
def tried(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
print(tried(socket.socket), tried(lambda: os.open("/dev/null", os.O_RDONLY)), tried(os.pipe),
      tried(lambda: bytearray(1 << 30)), tried(lambda: bytearray(1 << 26)), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_reader_can_open_nothing_and_take_only_so_much():
    """No socket, no file, no pipe, no gibibyte; what a record needs it can have."""
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("OSError OSError OSError MemoryError done (0, 0)", "")


def test_the_nursery_knows_nothing_of_its_worker(source, monkeypatch):
    """No variable of the worker's, none of its open files, and no reader of one sync is left for the next."""
    monkeypatch.setenv("HEADWATER_SECRET", "canary")
    source.shelf.files = {"a.jsonl": b"1\n"}
    source.sync()
    nursery = readers.nursery().pid
    assert b"HEADWATER" not in Path(f"/proc/{nursery}/environ").read_bytes()
    assert sorted(int(path.name) for path in Path(f"/proc/{nursery}/fd").iterdir()) == [0, 1, 2]
    assert list(readers_now()) == []


def test_a_sync_of_nothing_has_no_reader(source, monkeypatch):
    """Plain files are not opened, and unchanged ones not read."""
    monkeypatch.setattr(readers, "Reader", None)
    monkeypatch.setattr("headwater_worker.sync.files.Reader", None)
    source.shelf.files = {"a.png": b"\x89PNG"}
    assert source.sync().status == "succeeded"


@pytest.mark.parametrize("small_bytes", [0, fetching.SMALL_BYTES])
def test_a_reader_that_is_killed_costs_one_file(source, monkeypatch, small_bytes):
    """The file that it read is a reject, and read again by the next sync; nothing else is lost or doubled."""
    monkeypatch.setattr(fetching, "SMALL_BYTES", small_bytes)
    source.shelf.files = {f"{number}.jsonl": b'{"n": 1}\n' * 20_000 for number in range(6)}
    victims = []

    def interrupt() -> None:
        if not victims and (found := list(readers_now())):
            os.kill(found[0], signal.SIGKILL)
            victims.append(found[0])

    ended = source.attempt(source.claim(source.submit(), interrupt))
    assert ended.status == "partially_succeeded"
    (reject,) = source.rejects()
    assert (reject["code"], reject["record_number"]) == (readers.DIED, None)
    whole = {path: count for path, count in source.stored_items().items() if path != reject["path"]}
    assert whole == {f"{n}.jsonl": 20_000 for n in range(6) if f"{n}.jsonl" != reject["path"]}
    ended = source.sync()
    assert (ended.counters["unchanged"], ended.counters["landed"], ended.status) == (5, 20_000, "succeeded")
    assert source.totals()["item_count"] == 120_000


def test_a_nursery_that_is_killed_is_started_again(source):
    """Before a sync, nobody notices."""
    source.shelf.files = {"a.jsonl": b"1\n"}
    source.sync()
    os.kill(readers.nursery().pid, signal.SIGKILL)
    source.shelf.files = {"b.jsonl": b"2\n"}
    assert source.sync().status == "succeeded"


def test_what_used_up_its_time_is_told_from_what_died():
    """The kernel ends a reader by SIGPROF when it works too long without a result."""
    assert [readers.why(status).code for status in (int(signal.SIGPROF), int(signal.SIGKILL), 256, None)] == [
        "file_too_complex", readers.DIED, readers.DIED, readers.DIED,
    ]  # fmt: skip


_TOLD = Told(found="c2", digest="0" * 32, cursor="2026", odd_cursors=0, first=["key"])


def _said(told: Told, **lies: Any) -> Told | None:
    """What the worker makes of it."""
    done = orjson.dumps([{}, 1, None, told.as_json() | lies])
    answer = messages.parse(messages.DONE, done, b"", b"")
    assert isinstance(answer, Done)
    return answer.told


def test_what_is_told_of_an_answer_comes_through():
    """Whichever shape its parts have."""
    odd = Told(ODD, "1" * 32, None, 3, Refusal(None, "code", "message", "excerpt", "/pointer"))
    assert [_said(told) for told in (_TOLD, odd)] == [_TOLD, odd]


@pytest.mark.parametrize(
    "lie",
    [
        {"found": {"next": "x"}},
        {"found": 1.5},
        {"found": "x" * 8_193},
        {"digest": "0" * 33},
        {"digest": None},
        {"cursor": "a\0"},
        {"cursor": "x" * 1_001},
        {"cursor": 1},
        {"odd_cursors": "1"},
        {"first": ["password"]},
        {"first": [["key"]]},
        {"first": 1},
        {"first": {"line": 1, "code": ["key"], "message": "message"}},
        {"first": {"shell": "x"}},
    ],
)
def test_what_is_told_of_an_answer_must_have_its_form(lie):
    """A reader may have been taken over by what it read."""
    with pytest.raises(Garbled):
        _said(_TOLD, **lie)


def test_rows_of_another_load_are_noticed():
    """A reader may have been taken over by what it read: what it says is believed of its own load alone."""
    block = Block([(1, b"1", 1), Refusal(2, "code", "message"), (3, b"3", 3)])
    judged = Judge(None, load_id=7).judge(block)
    assert [judged.is_of(*these) for these in ((7, 0), (8, 0), (7, 1))] == [True, False, False]
    assert [row[-1:] for row, _ in judged.each()] == [b"1", b"3"]
