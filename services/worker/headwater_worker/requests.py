"""What a worker's parent process does when a child dies under a job: it ends the child's lease."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from headwater import ids
from headwater_worker import presence


class JobRequest(Request):  # type: ignore[misc]
    """One ring that a child has taken."""

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        """A child that was killed cannot give its job back: without this the job waits until the lease runs out."""
        if exc_info.type is WorkerLostError and self.worker_pid is not None:
            presence.child_died(ids.decode("job", self.args[0]), self.worker_pid)
        return super().on_failure(exc_info, *arguments, **options)
