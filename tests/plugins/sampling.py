"""Every function of the domain that gives a statement, and something to call each with.

A new one is found by itself. If its parameters have names that are known, it needs nothing else.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import headwater
from headwater import clock, ids
from headwater.audit.acts import Act
from headwater.catalogue.loads import Differences, Landed
from headwater.db import Row, Statement
from headwater.jobs.kinds import Queue
from headwater.jobs.outcome import Progress
from headwater.settings import QuotaSettings


def samples(*, job: Row, load: Row, webhook_id: UUID) -> dict[str, Any]:
    """For every name of a parameter a value that is in the database."""
    request = {
        "id": str(ids.new()), "actor_id": str(job["created_by"]),
        "project_id": str(job["project_id"]), "data_source_id": str(job["data_source_id"]), "kind": "connection_test",
        "queue": "interactive", "params": {}, "draft": None, "types": ["s3"], "priority": 0, "max_attempts": 3,
        "default_deadline_seconds": 25, "live_job_limit": 10_000, "queues": [queue.value for queue in Queue],
        "sealed": [], "request_id": "tests",
    }  # fmt: skip
    failure = {"code": "timeout", "message": "It did not answer."}
    return {
        "organization_id": job["organization_id"], "project_id": job["project_id"], "job_id": job["id"],
        "data_source_id": job["data_source_id"], "actor_id": job["created_by"], "created_by": job["created_by"],
        "subject_id": job["id"], "key_id": None, "load_id": load["id"], "load_ids": [load["id"]], "path": load["path"],
        "webhook_id": webhook_id, "delivery_id": ids.new(), "upload_id": ids.new(), "upload_ids": [ids.new()],
        "token": ids.new(), "job_ids": [job["id"]], "project_ids": [job["project_id"]],
        "data_source_ids": [job["data_source_id"]], "jobs": [(job["organization_id"], job["id"])],
        "requests": [request], "progress": Progress("tests"),
        "settings": QuotaSettings(), "act": Act.JOB_SUBMIT, "queue": "interactive", "kind": "sync", "kinds": ["sync"],
        "statuses": ["failed"], "created_before": clock.now(), "created_after": clock.now(), "limit": 26,
        "running_limit": 10, "source_limit": 10, "endpoint_limit": 4, "rering_seconds": 15.0, "lease_seconds": 30.0,
        "retention_days": 90, "kept_seconds": 3600, "receiving_seconds": 900, "partial_seconds": 86400,
        "error": failure, "deadline_error": failure, "base_seconds": 1.0, "cap_seconds": 60.0, "worker": "tests",
        "name": "tests", "slots": 1, "version": "1", "snapshot": 1, "fingerprint": "a fingerprint", "prefix": "exports",
        "after": "", "through": None, "differences": Differences(job["data_source_id"], "a fingerprint", full=False),
        "count": 1, "flip": True, "items": 1, "errors": 1, "finished": True, "record_number": 1,
        "loads": [Landed(id=load["id"], path=load["path"], etag="e", loaded=True, item_count=1, error_count=0)],
        "key": ["id"], "replaces": True, "carry": True, "route": "POST /tests", "status": "failed", "body": None,
        "headers": {}, "attempt_outcome": "failed", "result": None, "delay_seconds": 0.0, "released": False,
        "verdict": "failing", "verdict_reason": "It did not answer.", "reason": None, "request_id": "tests",
        "address": None, "redis_up": True, "per_source": True, "content_type": "text/csv", "total": 1, "start": 0,
        "size": 1, "states": ["partial"], "sha256": "0" * 64, "segments": [], "duration_ms": 1, "status_code": 200,
        "error_code": None, "whole": True, "counts": {"malformed": 1},
    }  # fmt: skip


# Where a name means something else.
_OTHERWISE: Final[dict[str, dict[str, Any]]] = {
    "catalogue.keyed.item_slice_end": {"after": 0},
    "catalogue.keyed.settle": {"after": 0, "through": 20_000},
    "idempotency.claim": {"key": "k", "fingerprint": b"f"},
    "idempotency.find": {"key": "k"},
    "idempotency.complete": {"key": "k", "status": 200},
    "jobs.statements.events": {"after": 0},
    "uploads.statements.begin": {"key": ids.new()},
    "uploads.statements.go_on": {"key": ids.new()},
    "uploads.statements.add_segment": {"key": ids.new()},
    "webhooks.statements.disable": {"reason": "gone"},
}
# What takes another's parameters, or is several statements of a temporary table.
_SKIPPED: Final = {
    "uploads.statements.begin_partial", "jobs.lifecycle._record_statement", "catalogue.inventory.create",
    "catalogue.inventory.analyze", "catalogue.loads.create_scratch",
}  # fmt: skip


def _found() -> dict[str, Callable[..., Statement]]:
    functions = {}
    for info in pkgutil.walk_packages(headwater.__path__, "headwater."):
        module = importlib.import_module(info.name)
        for name, function in vars(module).items():
            own = inspect.isfunction(function) and function.__module__ == info.name
            if own and inspect.get_annotations(function).get("return") is Statement:
                functions[f"{info.name.removeprefix('headwater.')}.{name}"] = function
    return {name: function for name, function in functions.items() if name not in _SKIPPED}


def statements(values: dict[str, Any]) -> dict[str, Statement]:
    """Each by the name of its function, with a value for all that has no default."""
    return {name: _called(name, function, values) for name, function in _found().items()}


def _called(name: str, function: Callable[..., Statement], values: dict[str, Any]) -> Statement:
    values = values | _OTHERWISE.get(name, {})
    needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return function(**{parameter: values[parameter] for parameter in needed})
