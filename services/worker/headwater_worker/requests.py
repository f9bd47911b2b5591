"""What a worker's parent process does when a child dies under a job: it ends the child's lease."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from headwater import ids
from headwater.errors import NotFound
from headwater_worker import presence


class JobRequest(Request):  # type: ignore[misc]
    """One ring that a child has taken."""

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        """A child that was killed cannot give its job back: without this the job waits until the lease runs out."""
        if exc_info.type is WorkerLostError and self.worker_pid is not None:
            self._end_lease()
        return super().on_failure(exc_info, *arguments, **options)

    def _end_lease(self) -> None:
        try:
            job_id = ids.decode("job", str(self.args[0]))
        except (IndexError, NotFound):
            return
        presence.child_died(job_id, self.worker_pid)
