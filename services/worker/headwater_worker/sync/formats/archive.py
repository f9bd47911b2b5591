"""ZIP archives: every member that has a record format, in the order of their names.

The directory stands at the end, so the archive goes to disk first, as one file without a name. Members are unpacked
from there as they are read, and never written anywhere. A member that cannot be read costs itself, not those behind it.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Final, Protocol

from headwater_worker.sync.formats.base import READ_BYTES, Block, Options, Refusal, Source, Unreadable
from headwater_worker.sync.formats.spooling import spool, spooled
from headwater_worker.sync.formats.unpacking import unpacked

_MOST_MEMBERS: Final = 10_000
# Names and sizes of 10,000 members; Python keeps them all.
_DIRECTORY_BYTES: Final = 4 * 1024 * 1024
# Beyond this size, nothing that people keep as records is packed better.
_SMALL_BYTES: Final = 64 * 1024 * 1024
_ABSURD_RATIO: Final = 500

# APPNOTE.TXT 4.4.5.
_METHODS: Final = {8: "deflate", 12: "bz2", 93: "zst"}
_STORED: Final = 0
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
# What `zipfile` raises over a directory that makes no sense.
_BROKEN: Final = (zipfile.BadZipFile, ValueError, OSError, struct.error, OverflowError, NotImplementedError, IndexError)

_ARCHIVES: Final = (
    ".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".jar"
)  # fmt: skip
_UNSAFE: Final = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.(?:[/\\]|\Z)", re.DOTALL)
# What macOS puts into archives beside the files.
_LITTER: Final = re.compile(r"(?:.*/)?(?:__MACOSX/|\._[^/]*\Z)", re.DOTALL)


class _Format(Protocol):
    """A `choice.Format`."""

    @property
    def is_plain(self) -> bool: ...
    def blocks(self, source: Source, options: Options) -> Iterator[Block]: ...


def blocks(source: Source, options: Options, format_of: Callable[[str], _Format]) -> Iterator[Block]:
    """The records of all members; each block says whose they are. Notes how many `members` were read, or not.

    Raises `Unreadable` if the archive as a whole cannot be used; the copy on disk is deleted whatever happens.
    """
    with spool() as copy:
        yield from spooled(source, copy)
        yield from _Archive(copy, options, format_of).blocks()


class _Archive:
    """An archive on disk."""

    def __init__(self, spool: IO[bytes], options: Options, format_of: Callable[[str], _Format]) -> None:
        self._spool = spool
        self._options = options
        self._format_of = format_of
        self._counts = {"read": 0, "refused": 0, "passed_over": 0}

    def blocks(self) -> Iterator[Block]:
        members = self._members()
        for member in members:
            for block in self._member(member):
                yield replace(block, member=member.filename)
        self._options.details["members"] = dict(self._counts)
        if members and not (self._counts["read"] or self._counts["refused"]):
            raise Unreadable(
                "The archive holds no file with a record format. Exclude it, or set `reading.format` to say what its "
                "files are, or to `plain` for one item that points at the archive.",
                code="no_records_in_archive",
            )

    def _members(self) -> list[zipfile.ZipInfo]:
        """The files in the archive, by name."""
        try:
            with zipfile.ZipFile(_Bounded(self._spool)) as archive:
                entries = archive.infolist()
        except _BROKEN as error:
            raise Unreadable("The file is no ZIP archive, or it is damaged or cut off.") from error
        if len(entries) > _MOST_MEMBERS:
            raise _too_many()
        files = [entry for entry in entries if not entry.is_dir() and not _LITTER.match(entry.filename)]
        # Members may overlap, so that each alone looks harmless.
        if _is_absurd(sum(file.file_size for file in files), self._spool.seek(0, 2)):
            raise Unreadable(_ABSURD, code="absurd_ratio")
        return sorted(files, key=lambda file: (file.filename, file.header_offset))

    def _member(self, member: zipfile.ZipInfo) -> Iterator[Block]:
        file_format = self._format_of(member.filename)
        refusal = _refusal(member, is_plain=file_format.is_plain)
        if refusal is None and file_format.is_plain:
            self._counts["passed_over"] += 1
        elif refusal is not None:
            self._counts["refused"] += 1
            yield Block([], faults=[refusal])
        else:
            self._counts["read"] += 1
            options = Options(csv=self._options.csv, schema=self._options.schema)
            try:
                yield from file_format.blocks(_opened(self._spool, member), options)
            except Unreadable as error:
                yield Block([], faults=[Refusal(error.line, error.code, error.message)])


def _refusal(member: zipfile.ZipInfo, *, is_plain: bool) -> Refusal | None:
    """Why a member may not be read."""
    if not member.filename or _UNSAFE.match(member.filename):
        message = "A name in an archive must be relative and without `..`. Pack the archive again from within a folder."
        return Refusal(None, "unsafe_member_name", message)
    if member.filename.lower().endswith(_ARCHIVES):
        return Refusal(None, "nested_archive", "An archive within an archive is not read. Unpack the outer one.")
    if is_plain:
        return None
    if member.flag_bits & _ENCRYPTED:
        return Refusal(None, "encrypted_member", "This member is encrypted. Pack it again without a password.")
    if member.compress_type != _STORED and member.compress_type not in _METHODS:
        message = "This member's compression is not known; deflate, bzip2 and zstd are. Pack it again."
        return Refusal(None, "unsupported_compression", message)
    if _is_absurd(member.file_size, member.compress_size):
        return Refusal(None, "absurd_ratio", _ABSURD)
    return None


_ABSURD: Final = "This unpacks to more than 500 times its size. If that is meant, compress it in another form (`.gz`)."


def _is_absurd(unpacked_size: int, packed_size: int) -> bool:
    return unpacked_size > _SMALL_BYTES and unpacked_size > _ABSURD_RATIO * packed_size


def _too_many() -> Unreadable:
    return Unreadable("The archive has more than 10,000 members. Split it.", code="too_many_members")


def _opened(spool: IO[bytes], member: zipfile.ZipInfo) -> Source:
    if member.header_offset < 0:
        raise Unreadable("This member's place in the archive makes no sense.")
    spool.seek(member.header_offset)
    header = spool.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise Unreadable("This member's place in the archive makes no sense.")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    packed = _Slice(spool, member.header_offset + _LOCAL_HEADER.size + name + extra, member.compress_size)
    method = _METHODS.get(member.compress_type)
    return _Checked(unpacked(packed, method) if method else packed, size=member.file_size, checksum=member.CRC)


class _Slice(Source):
    """Part of a file, whoever else reads it meanwhile."""

    def __init__(self, spool: IO[bytes], begin: int, size: int) -> None:
        super().__init__(spool)
        self._spool = spool
        self._at = begin
        self._end = begin + size

    def read(self, size: int = -1, /) -> bytes:
        self._spool.seek(self._at)
        data = self._spool.read(min(READ_BYTES if size < 0 else size, self._end - self._at))
        self._at += len(data)
        return data


class _Checked(Source):
    """A member's bytes; raises `Unreadable` where they are not what the directory says."""

    def __init__(self, source: Source, *, size: int, checksum: int) -> None:
        super().__init__(source)
        self._source = source
        self._left = size
        self._checksum = checksum
        self._so_far = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable("This member is longer than the archive's directory says.")
        self._so_far = zlib.crc32(data, self._so_far)
        if not data and self._left:
            raise Unreadable("This member breaks off before its end.")
        if not data and self._so_far != self._checksum:
            raise Unreadable("This member is damaged: its checksum is not that of the archive's directory.")
        return data


class _Bounded:
    """A file for `zipfile`, which takes in a directory of any size at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        # Without a size it looks for the directory in the last 64 KiB.
        if size is not None and size > _DIRECTORY_BYTES:
            raise _too_many()
        return self._file.read(-1 if size is None else size)
