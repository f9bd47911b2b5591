"""Violated constraints of the database, told as errors of ours: the race that a look beforehand would lose."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import IntegrityError

from headwater.errors import RequestError, Unavailable


def _key_replaced() -> RequestError:
    return Unavailable(
        "The organization's key was replaced at this moment; nothing was stored.",
        code="key_replaced",
        hint="Send the same request again.",
        retry_after_seconds=1,
    )


KEY_REPLACED: Final[Mapping[str, Callable[[], RequestError]]] = {"fk_sealed_credential_key_id": _key_replaced}
"""Around every write of a sealed secret: the key that it was sealed to is not there any more."""


@contextmanager
def named_violations(errors: Mapping[str, Callable[[], RequestError]]) -> Iterator[None]:
    """Raise `errors[name]` when what runs inside violates the constraint or unique index `name`."""
    try:
        yield
    except (IntegrityError, psycopg.IntegrityError) as error:
        cause = error.orig if isinstance(error, IntegrityError) else error
        name = cause.diag.constraint_name if isinstance(cause, psycopg.Error) else None
        if name is None or name not in errors:
            raise
        raise errors[name]() from error
