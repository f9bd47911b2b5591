"""Violated constraints of the database, told as errors of ours: the race that a look beforehand would lose."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import IntegrityError

from headwater.errors import RequestError


@contextmanager
def named_violations(errors: Mapping[str, Callable[[], RequestError]]) -> Iterator[None]:
    """Raise `errors[name]` when the flush inside violates the constraint or unique index `name`."""
    try:
        yield
    except IntegrityError as error:
        cause = error.orig
        name = cause.diag.constraint_name if isinstance(cause, psycopg.Error) else None
        if name is None or name not in errors:
            raise
        raise errors[name]() from error
