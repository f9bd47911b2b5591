"""What one sync is to do: the job's parameters and its version's reading and validation, taken apart once."""

import codecs
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Literal

import orjson

from headwater.data_sources.record_schema import RecordSchema
from headwater.errors import JobError
from headwater.jobs.lifecycle import Claim
from headwater_worker.sync.formats import choice
from headwater_worker.sync.formats.base import CsvOptions
from headwater_worker.sync.globs import Globs
from headwater_worker.sync.validation import Schema

OnMissing = Literal["keep", "mark", "delete"]
_ON_MISSING: Final = ("keep", "mark", "delete")


@dataclass(frozen=True)
class Limit:
    """How many rejects a sync bears: so many, or such a share of its records."""

    count: int | None = None
    share: Fraction | None = None

    def is_over(self, *, rejected: int, parsed: int) -> bool:
        """Whether that is too much, once all is read."""
        if self.count is not None:
            return rejected > self.count
        return self.share is not None and rejected > self.share * max(parsed, rejected)

    def is_hopeless(self, *, rejected: int) -> bool:
        """Whether that is too much already, whatever comes."""
        return self.count is not None and rejected > self.count


@dataclass(frozen=True)
class Plan:
    """What to list, how to read, when to refuse.

    `fingerprint` says how files are read: one that was read otherwise is read again. `limit` None: any number of
    rejects is borne. `at_once`: all of the sync becomes visible in one step at its end, or nothing does. `whole`: that
    is so whatever the limit.
    """

    prefix: str
    full: bool
    globs: Globs
    on_missing: OnMissing
    format: str | None
    csv: CsvOptions
    strict: bool
    limit: Limit | None
    record_schema: RecordSchema | None = field(repr=False)
    validator: Schema | None
    fingerprint: str
    whole: bool = False

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """What says of which type a column is; true and false name no columns."""
        return self.record_schema if isinstance(self.record_schema, Mapping) else None

    @property
    def at_once(self) -> bool:
        """Whether files may not be shown one after another."""
        return self.whole or self.limit is not None


def plan(claim: Claim) -> Plan:
    """The plan of a sync job. Raises `JobError` (`config_invalid`) if its version's options make no sense."""
    reading, validation = claim.reading, claim.validation
    strict = validation.get("mode", "lenient") == "strict"
    schema = validation.get("schema")
    on_missing: OnMissing = reading.get("on_missing") or "mark"
    # A type may let its config say the format; what the user says about reading wins.
    wished = reading.get("format") or claim.config.get("format")
    named = {"ndjson": "jsonl", "tsv": "csv"}.get(wished or "", wished)
    if on_missing not in _ON_MISSING or (named is not None and not choice.is_format(named)):
        raise _invalid("`reading` names an unknown format or policy.")
    options = _csv(reading.get("csv") or {})
    return Plan(
        prefix=claim.params.get("prefix") or "",
        full=bool(claim.params.get("full")),
        globs=Globs(include=reading.get("include") or (), exclude=reading.get("exclude") or ()),
        on_missing=on_missing,
        format=named,
        csv=options,
        strict=strict,
        limit=_limit(validation.get("max_errors"), strict=strict),
        record_schema=schema,
        validator=None if schema is None else Schema(schema),
        fingerprint=_fingerprint(schema=schema, strict=strict, named=named, options=options),
    )


def _limit(max_errors: int | str | None, *, strict: bool) -> Limit | None:
    if strict:
        return Limit(count=0)
    if max_errors is None:
        return None
    if isinstance(max_errors, int):
        return Limit(count=max_errors)
    try:
        return Limit(share=Fraction(max_errors.removesuffix("%").strip()) / 100)
    except ValueError:
        raise _invalid("`validation.max_errors` is neither a count nor a percentage.") from None


def _csv(options: Mapping[str, Any]) -> CsvOptions:
    encoding, header = options.get("encoding"), options.get("header")
    if encoding is not None:
        try:
            found = codecs.lookup(encoding)
        except LookupError:
            raise _invalid("`reading.csv.encoding` is not known.") from None
        encoding = found.name
    delimiter = options.get("delimiter")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise _invalid("`reading.csv.delimiter` must be one character, and no quote or end of line.")
    return CsvOptions(delimiter=delimiter, encoding=encoding, header=header is not False)


def _fingerprint(*, schema: Any, strict: bool, named: str | None, options: CsvOptions) -> str:
    how = {
        "readers": choice.VERSION,
        "schema": schema,
        "strict": strict,
        "format": named,
        "csv": [options.delimiter, options.encoding, options.header],
    }
    return hashlib.sha256(orjson.dumps(how, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _invalid(message: str) -> JobError:
    return JobError(message, code="config_invalid", hint="Correct the data source's `reading` and `validation`.")
