"""`sync`: bring in what is new and changed behind a data source."""

from headwater.errors import JobError
from headwater.jobs.outcome import Outcome
from headwater_worker.connectors.base import FileConnector, RecordConnector
from headwater_worker.connectors.opening import open_connector
from headwater_worker.context import JobContext
from headwater_worker.sync import engine


def run(context: JobContext) -> Outcome:
    """Result: {item_count, error_count, duration_ms} of the source afterwards; the funnel is in the counters."""
    with open_connector(context) as connector:
        if not isinstance(connector, FileConnector | RecordConnector):
            raise JobError("This type of source has nothing to bring in.", code="unsupported")
        return engine.run(context, connector)
