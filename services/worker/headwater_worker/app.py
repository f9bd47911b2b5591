"""The Celery app: configuration and task names, nothing else.

A message is `{job_id}` and rings for a job; what it does is in Postgres. Messages are acked early, there is no result
backend, no retry, no ETA and no revoke: losing, doubling or forging one changes latency only.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, bootsteps, signals
from celery.worker.control import Panel
from kombu.entity import Queue as BrokerQueue

from headwater import ids
from headwater.jobs.kinds import KINDS, Kind, Queue
from headwater.settings import RedisSettings
from headwater_worker import children, gate, presence
from headwater_worker.broker import Amqp

# A broken or frozen Redis is given up on within seconds, and a silent peer is noticed.
_TRANSPORT_OPTIONS: Final = {
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": False,
    # A ring that is lost is made again: none is kept aside until it is acked, where somebody could put others.
    "ack_emulation": False,
    # One list a queue.
    "priority_steps": [0],
}
_EVENTS_SECONDS: Final = 0.25

# Beyond the deadline that a job may ask for, the heartbeat's own kill, and this.
_BACKSTOP_SECONDS: Final = 60

app = Celery("headwater", amqp=Amqp)
app.conf.update(
    broker_url=RedisSettings().redis_url,
    broker_transport_options=_TRANSPORT_OPTIONS,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # A key of another type, which the scheduler removes, ends a connection and not the worker.
    broker_channel_error_retry=True,
    broker_pool_limit=2,
    result_backend=None,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=False,
    task_create_missing_queues=False,
    task_queues=[BrokerQueue(queue.value) for queue in Queue],
    worker_prefetch_multiplier=1,
    # A ring that was taken while every slot is busy would wait there for hours, though another worker is idle.
    worker_disable_prefetch=True,
    # A new child costs a few hundred milliseconds: one that has worked long, or needed much, is replaced all the same.
    worker_max_tasks_per_child=2_000,
    worker_max_memory_per_child=400_000,  # KiB at its peak
    worker_send_task_events=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_enable_remote_control=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_proc_alive_timeout=30,
)


def _task(kind: Kind) -> Callable[[str], None]:
    def ring(job_id: str) -> None:
        children.runner().run(ids.decode("job", job_id), kind=kind.name)

    return ring


for _kind in KINDS.values():
    app.task(
        _task(_kind),
        name=_kind.task,
        typing=False,
        time_limit=_kind.longest_seconds + _BACKSTOP_SECONDS,
        Request="headwater_worker.requests:JobRequest",
    )

# Celery's own tasks, such as `celery.backend_cleanup`, and every command that the gate lets nobody ask for.
for _name in [name for name in app.tasks if name.startswith("celery.")]:
    del app.tasks[_name]
for _name in set(Panel.data) - gate.COMMANDS:
    del Panel.data[_name]
    Panel.meta.pop(_name, None)  # an alias has none


class _PresenceStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Runs with the consumer, so that it comes back with it after Redis was away.

    After the first heartbeat: Celery tries that one again without a word, and a worker that is cut off there hears
    nothing.
    """

    requires = ("celery.worker.consumer.tasks:Tasks", "celery.worker.consumer.heart:Heart")

    def start(self, consumer: Any) -> None:
        presence.seen()
        for say in (presence.seen, presence.refused):
            consumer.timer.call_repeatedly(presence.INTERVAL_SECONDS, say)


class _EventsStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Tells what Flower shows together: a message for each event would cost this process more than all else it does."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        events = consumer.event_dispatcher
        events.on_send_buffered = None
        consumer.timer.call_repeatedly(_EVENTS_SECONDS, events.flush)

    def shutdown(self, consumer: Any) -> None:
        if consumer.event_dispatcher is not None:  # Redis was found
            consumer.event_dispatcher.flush()


app.steps["consumer"].update((_PresenceStep, _EventsStep))


@signals.setup_logging.connect
def _keep_our_logging(**_ignored: Any) -> None:
    """Celery leaves logging alone when somebody listens to this."""
    # What it says of each message, the runner says of the job.
    logging.getLogger("celery").setLevel(logging.WARNING)


@signals.worker_process_init.connect
def _child_begins(**_ignored: Any) -> None:
    children.begin()


@signals.worker_shutting_down.connect
def _parent_stops(**_ignored: Any) -> None:
    children.DRAINING.begin()
    presence.gone()
