"""What every endpoint of the plain lane stands on."""

import asyncio
from typing import Any

import httpx2

from headwater.access.organizations import CreatedOrganization


def test_many_more_requests_than_connections_are_all_answered(
    api: Any, organization: CreatedOrganization, project: dict[str, Any]
) -> None:
    """A hundred at once on eight connections and forty threads: they take turns, none is 503."""

    async def statuses() -> list[int]:
        headers = {"Authorization": f"Bearer {organization.api_key}"}
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(headers=headers, timeout=30, limits=limits, trust_env=False) as client:
            path = f"{api.url}/projects/{project['id']}"
            answers = await asyncio.gather(*(client.get(path) for _ in range(300)))
            return [answer.status_code for answer in answers]

    assert set(asyncio.run(statuses())) == {200}
