"""Which files a sync wants: `include` and `exclude` globs, matched without ever going back over a path.

Within a path segment `*` is any run, `?` any one character, `[abc]` and `[!abc]` one of a set. A segment `**` is any
number of segments. A pattern without a `/` is matched against the file's name, any other against the whole path; one
that ends in `/` is everything below.
"""

import fnmatch
import re
from collections.abc import Sequence
from typing import Final, Literal

_ANY: Final = None
"""The segment `**`."""


class Globs:
    """Compiled `include` and `exclude`; without `include`, every file is wanted that is not excluded."""

    def __init__(self, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = [_Glob(pattern) for pattern in include]
        self._exclude = [_Glob(pattern) for pattern in exclude]

    @property
    def want_all(self) -> bool:
        """Whether no file is ever passed over."""
        return not self._include and not self._exclude

    def passed_over(self, path: str) -> Literal["not_included", "excluded"] | None:
        """Why the sync does not want `path`, as a word for `skipped_by`; None if it does."""
        if self._include and not any(glob.matches(path) for glob in self._include):
            return "not_included"
        if any(glob.matches(path) for glob in self._exclude):
            return "excluded"
        return None


class _Glob:
    def __init__(self, pattern: str) -> None:
        self._by_name = "/" not in pattern
        if pattern.endswith("/"):
            pattern += "**"
        self._segments = [
            _ANY if segment == "**" and not self._by_name else _segment(segment)
            for segment in pattern.removeprefix("/").split("/")
        ]

    def matches(self, path: str) -> bool:
        segments = [path.rpartition("/")[2]] if self._by_name else path.split("/")
        return _match(self._segments, segments)


def _segment(segment: str) -> re.Pattern[str]:
    # Since Python 3.11 in atomic groups: no star is ever tried twice at one place.
    return re.compile(fnmatch.translate(segment))


def _match(pattern: Sequence[re.Pattern[str] | None], segments: Sequence[str]) -> bool:
    """Both to their ends. Only the last `**` is ever extended, which is enough: it can take over from those before."""
    at = here = 0
    any_at: int | None = None
    resume = 0
    while here < len(segments):
        expected = pattern[at] if at < len(pattern) else None
        if at < len(pattern) and expected is _ANY:
            any_at, resume, at = at, here, at + 1
        elif expected is not None and expected.match(segments[here]):
            at, here = at + 1, here + 1
        elif any_at is not None:
            resume += 1
            at, here = any_at + 1, resume
        else:
            return False
    return all(part is _ANY for part in pattern[at:])
