"""One file of the demo's bucket: its bytes, and what a sync has to make of them."""

import gzip
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Format = Literal["csv", "json", "jsonl", "parquet", "zip", "plain", "directory"]


@dataclass(frozen=True, kw_only=True)
class DemoFile:
    """A file, with the counts known from how it was made; no parser was asked.

    `records` are those a lenient sync can bring in: a plain file is one item, a directory marker none.
    `broken_lines` are the lines (from 1) on which records start that no sync may bring in.
    `broken_file` says that the file as a whole cannot be read to its end; `records` then counts the
    whole records before the break, and a reader may refuse those as well.
    """

    path: str
    format: Format
    records: int
    body: bytes = field(repr=False)
    broken_lines: tuple[int, ...] = ()
    broken_file: bool = False


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over a corpus. `records` leaves out what stands in files that are broken as a whole."""

    files: int
    bytes: int
    records: int
    broken_lines: int
    broken_files: int


def totals(files: Iterable[DemoFile]) -> Totals:
    """What a lenient sync of these files has to report; directory markers are not files."""
    real = [file for file in files if file.format != "directory"]
    return Totals(
        files=len(real),
        bytes=sum(len(file.body) for file in real),
        records=sum(file.records for file in real if not file.broken_file),
        broken_lines=sum(len(file.broken_lines) for file in real),
        broken_files=sum(file.broken_file for file in real),
    )


def compressed(body: bytes) -> bytes:
    """Gzip without the time of day, so that two builds give the same bytes and the same etag."""
    return gzip.compress(body, compresslevel=6, mtime=0)


def archived(members: Mapping[str, bytes]) -> bytes:
    """A ZIP archive of {name: body}, of no time and no machine, for the same reason."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in members.items():
            member = zipfile.ZipInfo(name)
            member.create_system = 3
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, body, compresslevel=6)
    return buffer.getvalue()
