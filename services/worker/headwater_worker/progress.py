"""Where a job is, kept in memory by its handler and written down by the heartbeat about once a second."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from headwater.jobs.outcome import Progress

_SAMPLES: Final = 5
_WARNINGS: Final = 50


class Reporter:
    """The progress of one attempt. Thread-safe; every change is visible to the next `snapshot`."""

    def __init__(self, phase: str = "starting") -> None:
        self._lock = threading.Lock()
        self._phase = phase
        self._current = 0
        self._total: int | None = None
        self._unit: str | None = None
        self._phase_began = time.monotonic()
        self._counters: Counter[str] = Counter()
        self._skipped_by: Counter[str] = Counter()
        self._warnings: dict[str, str] = {}
        self._errors: dict[str, dict[str, Any]] = {}
        self._version = 0

    @property
    def version(self) -> int:
        """Changes with every change."""
        return self._version

    def phase(self, name: str, *, total: int | None = None, unit: str | None = None) -> None:
        """Begin a phase; `total` in `unit` (files, records, bytes), if known."""
        with self._lock:
            self._phase, self._current, self._total, self._unit = name, 0, total, unit
            self._phase_began = time.monotonic()
            self._version += 1

    def advance(self, by: int = 1) -> None:
        """So much more of the phase is done."""
        with self._lock:
            self._current += by
            self._version += 1

    def count(self, **counters: int) -> None:
        """Add to counters: `count(parsed=3, valid=2, rejected=1)`."""
        with self._lock:
            self._counters.update(counters)
            self._version += 1

    def skip(self, reason: str, by: int = 1) -> None:
        """Something was passed over, and why; counted in `skipped` and `skipped_by`."""
        with self._lock:
            self._counters["skipped"] += by
            self._skipped_by[reason] += by
            self._version += 1

    def warn(self, code: str, message: str) -> None:
        """Say something that the job's reader should know, once per code."""
        with self._lock:
            if len(self._warnings) < _WARNINGS:
                self._warnings.setdefault(code, message)
            self._version += 1

    def refuse(self, code: str, count: int = 1, sample: Mapping[str, Any] | None = None) -> None:
        """Add to the error summary: how often `code` refused something, with up to five samples."""
        with self._lock:
            entry = self._errors.setdefault(code, {"code": code, "count": 0, "samples": []})
            entry["count"] += count
            if sample is not None and len(entry["samples"]) < _SAMPLES:
                entry["samples"].append(dict(sample))
            self._version += 1

    def snapshot(self) -> Progress:
        """The progress now."""
        with self._lock:
            counters: dict[str, Any] = dict(self._counters)
            if self._skipped_by:
                counters["skipped_by"] = dict(self._skipped_by)
            return Progress(
                phase=self._phase,
                current=self._current,
                total=self._total,
                unit=self._unit,
                percent=self._percent(),
                eta_seconds=self._eta_seconds(),
                counters=counters,
                warnings=tuple({"code": code, "message": message} for code, message in self._warnings.items()),
                error_summary=tuple(
                    {**entry, "samples": list(entry["samples"])}
                    for entry in sorted(self._errors.values(), key=lambda entry: -entry["count"])
                ),
            )

    def _percent(self) -> int | None:
        if not self._total:
            return None
        return min(100, 100 * self._current // self._total)

    def _eta_seconds(self) -> int | None:
        if not self._total or not self._current:
            return None
        elapsed = time.monotonic() - self._phase_began
        return round(elapsed * max(0, self._total - self._current) / self._current)
