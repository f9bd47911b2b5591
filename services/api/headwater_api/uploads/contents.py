"""What a file is, by its name and by its first bytes. What lies about itself, and programs, are refused."""

import mimetypes
import re
from typing import Final

from headwater.errors import UnsupportedMediaType

HEAD_BYTES: Final = 4096
ENOUGH_BYTES: Final = 64
"""With so many the longest of all beginnings is known."""

_TYPES: Final = mimetypes.MimeTypes(filenames=())
_OTHER_TYPES: Final = {
    "jsonl": "application/x-ndjson",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "gz": "application/gzip",
    "zst": "application/zstd",
}
_UNKNOWN: Final = "application/octet-stream"

_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
# What a binary file of this extension begins with.
_BEGINNINGS: Final[dict[str, tuple[bytes, ...]]] = {
    "parquet": (b"PAR1",),
    "gz": (b"\x1f\x8b",),
    "zst": (b"\x28\xb5\x2f\xfd",),
    "xz": (b"\xfd7zXZ\x00",),
    "bz2": (b"BZh",),
    "zip": _ZIP,
    "xlsx": _ZIP,
    "docx": _ZIP,
    "pptx": _ZIP,
    "png": (b"\x89PNG\r\n\x1a\n",),
    "jpg": (b"\xff\xd8\xff",),
    "jpeg": (b"\xff\xd8\xff",),
    "gif": (b"GIF87a", b"GIF89a"),
    "pdf": (b"%PDF-",),
    "avro": (b"Obj\x01",),
    "orc": (b"ORC",),
    "sqlite": (b"SQLite format 3\x00",),
}
_TEXTS: Final = frozenset(
    {"csv", "tsv", "txt", "json", "jsonl", "ndjson", "geojson", "xml", "yaml", "yml", "md", "html"}
)
_PROGRAMS: Final = (
    b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe",
)  # fmt: skip
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def content_type(name: str) -> str:
    """The media type that a name stands for. What the request says is often only what its client always says."""
    extension = _extension(name)
    return _OTHER_TYPES.get(extension) or _TYPES.guess_type(f"file.{extension}")[0] or _UNKNOWN


def check(name: str, head: bytes) -> None:
    """Raise `UnsupportedMediaType` for a program, and for a file that is not what its name says.

    `head` is the file's beginning, up to 4096 bytes. Only what is known for certain is refused: an unknown extension
    may hold anything, and text is never judged.
    """
    if head.startswith(_PROGRAMS) or (head.startswith(b"MZ") and b"\0" in head[:64]):
        raise UnsupportedMediaType("Programs are not taken.", code="content_refused")
    extension = _extension(name)
    expected = _BEGINNINGS.get(extension)
    if expected is not None and not head.startswith(expected):
        raise _mismatch(extension)
    if extension in _TEXTS and _CONTROLS.search(head) and head.startswith(_ALL_BEGINNINGS):
        raise _mismatch(extension)


_ALL_BEGINNINGS: Final = tuple(beginning for group in _BEGINNINGS.values() for beginning in group)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _mismatch(extension: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"The file's first bytes are not those of a .{extension} file.",
        code="content_mismatch",
        hint="Give the file the name of what it is.",
    )
