"""Who is asking."""

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from headwater import ids
from headwater.access import policy
from headwater.access.policy import Role


@dataclass(frozen=True)
class Actor:
    """The member behind a request, with the rights of the key or token that was used.

    `key_id` is None for a token of the identity provider. `project_ids` are those that a limited key is good for; None
    is all.
    """

    key_id: UUID | None
    organization_id: UUID
    organization_name: str
    member_id: UUID
    name: str
    email: str | None
    role: Role
    project_ids: frozenset[UUID] | None = None

    @cached_property
    def permissions(self) -> frozenset[str]:
        """What it may do, as `noun:verb`."""
        return policy.permissions(self.role, limited=self.project_ids is not None)

    @cached_property
    def named(self) -> dict[str, str | None]:
        """Its ids as they stand in the log."""
        return {
            "organization_id": ids.encode("org", self.organization_id),
            "member_id": ids.encode("user", self.member_id),
            "key_id": ids.encode("key", self.key_id) if self.key_id else None,
        }

    def may(self, permission: str) -> bool:
        """Whether it may do what `permission` names."""
        return permission in self.permissions

    def sees(self, project_id: UUID) -> bool:
        """Whether the key is good for this project."""
        return self.project_ids is None or project_id in self.project_ids
