"""Which format a file has: by what the user said, else by its name."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from headwater_worker.sync.formats import archive, csv_text, json_lines, json_text
from headwater_worker.sync.formats.base import Block, Options, Source
from headwater_worker.sync.formats.unpacking import COMPRESSIONS, unpacked

PLAIN: Final = "plain"
ZIP: Final = "zip"
_EXTENSIONS: Final = {
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
}
_READERS: Final = {"csv": csv_text, "json": json_text, "jsonl": json_lines}
VERSION: Final = "2"
"""Raised when a reader gives other records for the same bytes: everything is read again then."""


class Reader(Protocol):
    """A module of this package."""

    def blocks(self, source: Source, options: Options) -> Iterator[Block]:
        """The records of `source`."""


@dataclass(frozen=True)
class Format:
    """How a file is read. A plain file is not read at all: it is one item that points at it.

    `compression` is as in `unpacking`. `of_members`: what the user said about all files in a ZIP archive.
    """

    name: str
    compression: str | None = None
    of_members: str | None = None

    @property
    def is_plain(self) -> bool:
        """One item for the whole file."""
        return self.name == PLAIN

    @property
    def is_packed(self) -> bool:
        """Whether the file's first bytes are not those of its first record."""
        return self.compression is not None or self.name == ZIP

    def blocks(self, source: Source, options: Options) -> Iterator[Block]:
        """The records of the file whose bytes are `source`."""
        if self.name == ZIP:
            return archive.blocks(source, options, partial(format_of, named=self.of_members))
        source = source if self.compression is None else unpacked(source, self.compression)
        return _reader(self.name).blocks(source, options)


def is_format(named: str) -> bool:
    """Whether users may call a format that: `csv`, `csv.gz`, `zip`, `csv.zip`, `plain` ..."""
    return _named(named) is not None


def format_of(path: str, named: str | None = None) -> Format:
    """The format of the file at `path`; `named` (see `is_format`) is what the user said for all files of the source."""
    stem, extension = _split(path.rpartition("/")[2].lower())
    if named is not None:
        said = _named(named)
        assert said is not None
        if said.is_plain or said.is_packed:
            return said
        return Format(ZIP, of_members=said.name) if extension == ZIP else Format(said.name, COMPRESSIONS.get(extension))
    if extension == ZIP:
        return Format(ZIP)
    compression = COMPRESSIONS.get(extension)
    found = _EXTENSIONS.get(_split(stem)[1] if compression else extension)
    return Format(found, compression) if found else Format(PLAIN)


def _named(named: str) -> Format | None:
    if named in (PLAIN, ZIP):
        return Format(named)
    first, dot, packing = named.partition(".")
    name = _EXTENSIONS.get(first)
    if name is None:
        return None
    if not dot:
        return Format(name)
    if packing == ZIP:
        return Format(ZIP, of_members=name)
    return Format(name, COMPRESSIONS[packing]) if packing in COMPRESSIONS else None


def _split(name: str) -> tuple[str, str]:
    """A file's name without its extension, and that; "" for none."""
    stem, dot, extension = name.rpartition(".")
    return (stem, extension) if dot else (name, "")


def _reader(name: str) -> Reader:
    # Arrow is loaded with the first Parquet file: the parent of the worker's processes must not have it.
    if name == "parquet":
        return importlib.import_module("headwater_worker.sync.formats.parquet")
    return _READERS[name]
