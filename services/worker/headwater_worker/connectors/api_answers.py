"""What an answer of an API is, by what it says of itself: nobody looks into it here."""

from typing import Final

import httpx2

from headwater_worker.connectors import api_errors
from headwater_worker.sync.formats.choice import Format

LARGEST_JSON_BYTES: Final = 64 * 1024 * 1024

_JSON: Final = frozenset({"application/json", "text/json", "application/hal+json"})
_BY_TYPE: Final = {
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/json-seq": "",
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
    "text/html": "",
}
_EXTENSIONS: Final = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl"}
_READABLE: Final = ("json", "jsonl", "csv")
# Gzip is what the client offers; some send others all the same.
_ENCODINGS: Final = {"gzip": "gz", "x-gzip": "gz", "deflate": "zlib", "zstd": "zst"}


def format_of(response: httpx2.Response, named: str | None) -> Format:
    """The format of an answer: what the user said, else its type, else its name. Raises `Permanent`."""
    sent = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    encodings = [name for name in sent if name not in ("", "identity")]
    if len(encodings) > 1:
        raise api_errors.GARBLED.error()
    return Format(_name_of(response, named), _ENCODINGS.get(encodings[0]) if encodings else None)


def _name_of(response: httpx2.Response, named: str | None) -> str:
    if named is not None:
        return _readable(named)
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in _JSON or media.endswith("+json"):
        return "json"
    if media in _BY_TYPE:
        return _readable(_BY_TYPE[media])
    return _readable(_EXTENSIONS.get(response.url.path.rpartition(".")[2].lower(), "json"))


def _readable(name: str) -> str:
    if name not in _READABLE:
        raise api_errors.UNKNOWN_TYPE.error()
    return name
