"""Deleting the bytes that nobody can see any more, in bounded steps."""

from typing import Final

from headwater import db
from headwater.db import Connection
from headwater.uploads import statements
from headwater.uploads.storage import Storage

RETENTION_DAYS: Final = 30
"""A deleted source's files, as its items."""
_RECEIVING_SECONDS: Final = 3600  # a request that lives says so every minute
_PARTIAL_SECONDS: Final = 24 * 3600
_FILES: Final = 100


def prune(connection: Connection, storage: Storage) -> int:
    """Drop what was given up, and delete the bytes of at most 100 dropped files, then their rows; how many files.

    The connection is in autocommit; no transaction is open while bytes are deleted. Two who prune at once do the same
    twice, which harms nothing. Raises `StorageError`; what was deleted until then is deleted again the next time.
    """
    db.run(
        connection,
        statements.give_up(
            receiving_seconds=_RECEIVING_SECONDS, partial_seconds=_PARTIAL_SECONDS, retention_days=RETENTION_DAYS
        ),
    )
    leaving = db.run(connection, statements.leaving(limit=_FILES)).fetchall()
    for row in leaving:
        for key in row["keys"]:
            storage.delete(key)
    if leaving:
        db.run(connection, statements.forget([row["id"] for row in leaving]))
    return len(leaving)
