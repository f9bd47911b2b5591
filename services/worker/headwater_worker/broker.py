"""How a worker and Flower hear Redis: through the gate, and again every two seconds after it was away.

Celery waits longer from try to try, up to half a minute, and offers no setting for it: jobs would wait that long for a
Redis that is there again.
"""

from typing import Any, Final

import redis
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport import redis as transport

from headwater_worker import gate

_RETRY_SECONDS: Final = 2
_COMMANDS: Final = b"celery.pidbox"
_EVENTS: Final = b".celeryev"


class _Client(redis.Redis):
    """Reads rings through the gate. Other lists hold the answers that Flower waits for."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """As redis-py's; None, which is what an empty list gives, for a message that is refused."""
        response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name != "BRPOP" or not response:
            return response
        key, message = response
        queue = key.decode(errors="replace")
        if queue not in gate.QUEUES:
            return response
        ring = gate.ring(queue, message)
        return None if ring is None else (key, ring)

    def pubsub(self, **options: Any) -> "_Subscription":
        """One that reads commands and events through the gate."""
        return _Subscription(self.connection_pool, **options)


class _Subscription(redis.client.PubSub):
    def parse_response(self, *arguments: Any, **options: Any) -> Any:
        """As redis-py's; None for a command or an event that is refused."""
        response: Any = super().parse_response(*arguments, **options)  # type: ignore[no-untyped-call]
        if not isinstance(response, list) or response[0] not in (b"message", b"pmessage"):
            return response
        *addressed, channel, message = response
        if _EVENTS in channel:
            read = gate.events(message)
        elif channel.endswith(_COMMANDS):
            read = gate.command(message)
        else:
            return response
        return None if read is None else [*addressed, channel, read]


class _Channel(transport.Channel):
    def _get_client(self) -> type[redis.Redis]:
        return _Client


class _Transport(transport.Transport):
    Channel = _Channel


class Broker(Connection):
    """A connection that is tried again at an even pace."""

    def get_transport_cls(self) -> type[_Transport]:
        """Redis behind the gate, whatever the URL's scheme."""
        return _Transport

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """As kombu's, which returns the connection."""
        paced = {"interval_start": _RETRY_SECONDS, "interval_step": 0} | options
        return super().ensure_connection(*arguments, **paced)  # type: ignore[no-untyped-call]


class Amqp(AMQP):  # type: ignore[misc]
    """Celery's messages, over that."""

    Connection = Broker
