"""Roles and what they may do, as data: permissions are `noun:verb`."""

from typing import Final, Literal

Role = Literal["admin", "operator", "viewer"]

_VIEWER: Final = frozenset(
    {
        "organization:read",
        "member:read",
        "project:read",
        "data_source:read",
        "credentials:read",
        "job:read",
        "item:read",
    }
)
# An operator runs things and does not edit them.
_OPERATOR: Final = _VIEWER | {
    "data_source:test",
    "data_source:list",
    "data_source:sync",
    "upload:write",
    "job:submit",
    "job:cancel",
    "job:retry",
}
_ADMIN: Final = _OPERATOR | {
    "project:create",
    "project:write",
    "data_source:write",
    "credentials:write",
    "api_key:read",
    "api_key:write",
    "member:write",
    "organization:write",
    "audit_log:read",
    "webhook:read",
    "webhook:write",
}

PERMISSIONS: Final[dict[Role, frozenset[str]]] = {"viewer": _VIEWER, "operator": _OPERATOR, "admin": _ADMIN}

# What concerns the organization as a whole is not for a key that is limited to some of its projects.
_OF_THE_WHOLE: Final = frozenset(
    {
        "project:create",
        "member:read",
        "member:write",
        "api_key:read",
        "api_key:write",
        "organization:write",
        "audit_log:read",
        "webhook:read",
        "webhook:write",
    }
)


def as_role(text: str) -> Role:
    """The role of a row. Raises `StopIteration` for a text that no row can hold."""
    return next(role for role in PERMISSIONS if role == text)


def permissions(role: Role, *, limited: bool = False) -> frozenset[str]:
    """What `role` may do; `limited`: by a key that is good for some projects only."""
    return PERMISSIONS[role] - _OF_THE_WHOLE if limited else PERMISSIONS[role]
