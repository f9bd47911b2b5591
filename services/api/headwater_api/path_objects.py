"""The objects that a route's path names: are they there, for this actor?"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from headwater import clock, ids
from headwater.db import Row, Statement
from headwater.errors import Gone, NotFound
from headwater.jobs import pruning
from headwater_api.actor import Actor
from headwater_api.services import Lane

_PREFIXES: Final[dict[str, ids.Prefix]] = {
    "project_id": "proj",
    "data_source_id": "dsrc",
    "job_id": "job",
    "key_id": "key",
    "member_id": "user",
    "webhook_id": "hook",
    "delivery_id": "dlv",
}
# The innermost object that a path can name comes first. Each: its revision, if the organization has it.
_LOOK_UPS: Final = {
    "data_source_id": """
        select revision from data_source
        where id = %(data_source_id)s and project_id = %(project_id)s and organization_id = %(organization_id)s
          and deleted_at is null
    """,
    "project_id": """
        select revision from project
        where id = %(project_id)s and organization_id = %(organization_id)s and deleted_at is null
    """,
    "job_id": """
        select 1 as revision, project_id from job where id = %(job_id)s and organization_id = %(organization_id)s
    """,
    "key_id": """
        select 1 as revision from api_key
        where id = %(key_id)s and organization_id = %(organization_id)s and revoked_at is null
    """,
    "member_id": """
        select revision from member
        where id = %(member_id)s and organization_id = %(organization_id)s and removed_at is null
    """,
    "delivery_id": """
        select 1 as revision from webhook_delivery d join webhook w on w.id = d.webhook_id and w.deleted_at is null
        where d.id = %(delivery_id)s and d.webhook_id = %(webhook_id)s and d.organization_id = %(organization_id)s
    """,
    "webhook_id": """
        select revision from webhook
        where id = %(webhook_id)s and organization_id = %(organization_id)s and deleted_at is null
    """,
}


async def require_in_reach(lane: Lane, actor: Actor, path_params: Mapping[str, str]) -> None:
    """Hide from a limited key what belongs to a project that it is not good for. Raises `NotFound`."""
    if actor.project_ids is None:
        return
    named = _named(path_params)
    if "project_id" in named and not actor.sees(named["project_id"]):
        raise NotFound
    if "job_id" in named:
        row = await _look_up(lane, actor, named)
        # Not there at all: whoever looks for it later says so.
        if row is not None and not actor.sees(row["project_id"]):
            raise NotFound


async def require_not_pruned(lane: Lane, actor: Actor, path_params: Mapping[str, str]) -> None:
    """Raise `Gone` if the path names a job of which only the summary is kept."""
    named = _named(path_params)
    if "job_id" not in named:
        return
    row = await lane.fetch(pruning.summary(organization_id=actor.organization_id, job_id=named["job_id"]))
    if row is not None and actor.sees(row["project_id"]):
        finished_at = clock.rfc3339(row["finished_at"])
        raise Gone(
            f"This job ended as `{row['status']}` at {finished_at}, and was deleted since.",
            code="job_pruned",
            hint="What it brought in stays.",
        )


async def find_revision(lane: Lane, actor: Actor, path_params: Mapping[str, str]) -> int | None:
    """The revision of the innermost object that the path names; None if it names none. Raises `NotFound`."""
    named = _named(path_params)
    if not named:
        return None
    row = await _look_up(lane, actor, named)
    if row is None:
        await require_not_pruned(lane, actor, path_params)
        raise NotFound
    return int(row["revision"])


def _named(path_params: Mapping[str, str]) -> dict[str, UUID]:
    return {name: ids.decode(_PREFIXES[name], text) for name, text in path_params.items() if name in _PREFIXES}


async def _look_up(lane: Lane, actor: Actor, named: Mapping[str, UUID]) -> Row | None:
    text = next(text for name, text in _LOOK_UPS.items() if name in named)
    parameters: dict[str, Any] = {"organization_id": actor.organization_id, **named}
    return await lane.fetch(Statement(text, parameters))
