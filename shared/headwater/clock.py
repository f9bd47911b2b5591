"""The wall clock of this process. Leases and deadlines use the database's clock instead."""

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 text in UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
