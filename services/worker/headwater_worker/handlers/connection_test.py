"""Can this source be reached, with these credentials, and is there something to see? Writes nothing of its own."""

from contextlib import ExitStack
from typing import Final

from headwater.errors import CannotUnseal, Permanent
from headwater.jobs.outcome import Outcome, Succeeded
from headwater_worker.connectors import ladder
from headwater_worker.connectors.opening import open_connector
from headwater_worker.context import JobContext

_RESERVE_SECONDS: Final = 3.0  # of the deadline, for opening before and writing down after


def run(context: JobContext) -> Outcome:
    """Climb the ladder of checks. A broken connection is a result; the job fails only when it could not look.

    What opening refuses (`config_invalid`, `missing_credentials`, credentials that cannot be unsealed) is a failed
    `config`. Raises `JobError`, `KeyUnavailable` and what `checkpoint` raises.
    """
    context.progress.phase("testing")
    with ExitStack() as opened:
        try:
            connector = opened.enter_context(open_connector(context))
        except (Permanent, CannotUnseal) as error:
            return Succeeded(ladder.refused(error))
        seconds = max(1.0, context.claim.seconds_left - _RESERVE_SECONDS)
        return Succeeded(ladder.run(connector, seconds=seconds, checkpoint=context.checkpoint))
