"""How a worker comes back to Redis: it knocks every two seconds for as long as it takes.

Celery waits longer from try to try, up to half a minute, and offers no setting for it: jobs would wait that long for a
Redis that is there again.
"""

from typing import Any, Final

from celery.app.amqp import AMQP
from kombu.connection import Connection

_RETRY_SECONDS: Final = 2


class Broker(Connection):
    """A connection that is tried again at an even pace."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """As kombu's, which returns the connection."""
        paced = {"interval_start": _RETRY_SECONDS, "interval_step": 0} | options
        return super().ensure_connection(*arguments, **paced)  # type: ignore[no-untyped-call]


class Amqp(AMQP):  # type: ignore[misc]
    """Celery's messages, over that."""

    Connection = Broker
