"""What a worker and its readers say to one another, over two pipes.

To the reader: frames, each a kind and a length. From it: messages, each a kind and three lengths: of its JSON, of
lines, of rows. Nothing in a message is trusted beyond its form: a reader has read what a stranger wrote.
"""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson

from headwater_worker.sync.answers import Envelope, Told
from headwater_worker.sync.formats.base import CsvOptions, Refusal
from headwater_worker.sync.formats.choice import Format
from headwater_worker.sync.judging import Judged
from headwater_worker.sync.records import Looking

FRAME: Final = struct.Struct(">cI")
MESSAGE: Final = struct.Struct(">cIII")

SCHEMA: Final = b"s"
FILE: Final = b"f"
DATA: Final = b"d"
END: Final = b"e"
BROKEN_OFF: Final = b"b"
"""The kinds of frames. A file is FILE, DATA any number of times, then END, or BROKEN_OFF if its source failed."""

JUDGED: Final = b"j"
DONE: Final = b"d"
"""The kinds of messages: what became of some records; the file is over."""

# What a nursery is asked for.
BEGIN: Final = b"b"
LAST: Final = b"e"
PID: Final = struct.Struct(">i")
DESCRIPTORS: Final = 4

TOO_COMPLEX: Final = "file_too_complex"
MEMORY_BYTES: Final = 768 * 1024 * 1024
"""What a reader may take beyond what it begins with."""
RESULTLESS_SECONDS: Final = 30.0
"""Of the processor, until the next bytes are asked for or the next records are given out."""
LONGEST_MESSAGE_BYTES: Final = 256 * 1024 * 1024


class Garbled(Exception):
    """What came is no message, or says what cannot be."""


@dataclass(frozen=True)
class Order:
    """One file to read. `found`: what the reading before this one found out about it.

    `first`: the number behind which its records are counted. `looking`: it is an answer of a source of records, in JSON
    within `envelope`.
    """

    load_id: int
    format: Format
    csv: CsvOptions
    found: Mapping[str, Any]
    first: int = 0
    looking: Looking | None = None
    envelope: Envelope | None = None

    def as_json(self) -> bytes:
        """For the frame."""
        return orjson.dumps(asdict(self))

    @classmethod
    def of(cls, data: bytes) -> Self:
        """From the frame."""
        said = orjson.loads(data)
        looking, envelope = said["looking"], said["envelope"]
        return cls(
            said["load_id"],
            Format(**said["format"]),
            CsvOptions(**said["csv"]),
            said["found"],
            said["first"],
            looking and Looking(**looking),
            envelope and Envelope(**envelope),
        )


@dataclass(frozen=True)
class Done:
    """The file is over. `fault`: why no more than `size` bytes of it were read. `details`: what was found out.

    `told`: of an answer.
    """

    details: dict[str, Any]
    size: int
    fault: Refusal | None = None
    told: Told | None = None


def frame(kind: bytes, data: bytes = b"") -> list[bytes]:
    """A frame in pieces for `write`."""
    return [FRAME.pack(kind, len(data)), data]


def judged(answer: Judged) -> list[bytes]:
    """A message in pieces for `write`."""
    said = orjson.dumps(
        [
            answer.parsed,
            answer.good,
            [[number, *_fields(refusal)] for number, refusal in answer.refusals],
            answer.member,
            [_fields(fault) for fault in answer.faults],
        ]
    )
    return [MESSAGE.pack(JUDGED, len(said), len(answer.lines), len(answer.rows)), said, answer.lines, answer.rows]


def done(answer: Done) -> list[bytes]:
    """A message in pieces for `write`."""
    told = None if answer.told is None else answer.told.as_json()
    said = orjson.dumps([answer.details, answer.size, answer.fault and _fields(answer.fault), told])
    return [MESSAGE.pack(DONE, len(said), 0, 0), said]


def parse(kind: bytes, said: bytes, lines: bytes, rows: bytes) -> Judged | Done:
    """A message. Raises `Garbled`."""
    try:
        if kind == DONE:
            details, size, fault, told = orjson.loads(said)
            return Done(dict(details), int(size), fault and _refusal(*fault), told and Told.of(told))
        parsed, good, refusals, member, faults = orjson.loads(said)
        return Judged(
            int(parsed),
            int(good),
            rows,
            lines,
            [(int(number), _refusal(*fields)) for number, *fields in refusals],
            member,
            [_refusal(*fields) for fields in faults],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled from error


def write(descriptor: int, pieces: Sequence[bytes]) -> None:
    """All pieces, however often it takes. Raises `BrokenPipeError` if nobody reads them."""
    left = memoryview(b"".join(pieces))
    while left:
        left = left[os.write(descriptor, left) :]


def read(descriptor: int, size: int, wait: Callable[[], None] = lambda: None) -> bytearray:
    """`size` bytes; fewer if the pipe ends. `wait` is called before each piece."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        wait()
        count = os.readv(descriptor, [view[at:]])
        if not count:
            view.release()
            del data[at:]
            break
        at += count
    return data


def _fields(refusal: Refusal) -> list[int | str | None]:
    return [refusal.line, refusal.code, refusal.message, refusal.excerpt, refusal.pointer]


def _refusal(line: Any, code: Any, message: Any, excerpt: Any, pointer: Any) -> Refusal:
    if not (isinstance(code, str) and isinstance(message, str)):
        raise TypeError
    return Refusal(line, code, message, excerpt, pointer)
