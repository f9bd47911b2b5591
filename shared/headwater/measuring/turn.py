"""One scheduler measures at a time, whoever comes first; a dead one's turn ends with its connection."""

from headwater.db import Connection


def take(connection: Connection) -> bool:
    """Whether it is our turn, until the end of the open transaction."""
    return connection.execute("select from measurement for no key update skip locked").fetchone() is not None
