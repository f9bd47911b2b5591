"""One load while it is filled: what was parsed, kept and refused so far."""

from bisect import bisect
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from headwater.catalogue.loads import Landed
from headwater_worker.sync.formats.base import Refusal

KEPT_REJECTS: Final = 100_000
_SAMPLES: Final = 5
_LONGEST_MEMBER: Final = 200


@dataclass
class Loading:
    """A load that is being filled. `etag` is what is read; None if the source would not give it.

    `was`: what the file was to the sync, `new` or `changed`. `first` and `first_reject`: the numbers behind which its
    records and rejects are counted. `details`: what its reader found out.
    `members`: of an archive, each with the number of its first record.
    """

    id: int
    path: str
    etag: str | None
    was: Literal["new", "changed"]
    first: int = 0
    first_reject: int = 0
    parsed: int = 0
    valid: int = 0
    landed: int = 0
    refused: int = 0
    bytes_read: int = 0
    finished: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    members: list[tuple[int, str]] = field(default_factory=list)

    def enter(self, member: str) -> None:
        """What comes now is of this member of an archive."""
        if not self.members or self.members[-1][1] != member:
            self.members.append((self.parsed + 1, member))

    def placed(self, refusal: Refusal, record_number: int | None) -> Refusal:
        """The refusal, saying which member of an archive it is about; without a number, the one at hand."""
        if not self.members:
            return refusal
        at = len(self.members) if record_number is None else bisect(self.members, record_number, key=lambda m: m[0])
        member = self.members[at - 1][1][:_LONGEST_MEMBER]
        return replace(refusal, message=f'In "{member}": {refusal.message}')

    def refuse(self, refusal: Refusal, record_number: int | None) -> dict[str, Any]:
        """Count a refusal; its sample for the error summary."""
        self.refused += 1
        sample = {
            "path": self.path,
            "line": refusal.line,
            "record_number": record_number,
            "message": refusal.message,
        }
        entry = self.errors.setdefault(refusal.code, {"code": refusal.code, "count": 0, "samples": []})
        entry["count"] += 1
        if len(entry["samples"]) < _SAMPLES:
            entry["samples"].append(sample)
        return sample

    def so_far(self) -> Landed:
        """The load's row as it is now."""
        return Landed(
            id=self.id,
            path=self.path,
            etag=self.etag,
            loaded=self.finished,
            item_count=self.landed,
            error_count=self.refused,
            error_summary=[{**entry, "samples": list(entry["samples"])} for entry in self.errors.values()],
            counters={
                "was": self.was,
                "parsed": self.parsed,
                "valid": self.valid,
                "rejected": self.refused,
                "landed": self.landed,
                "bytes_read": self.bytes_read,
                **self.details,
            },
        )
