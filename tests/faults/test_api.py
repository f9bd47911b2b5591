"""An API that dies around a commit, and what its clients know then."""

import httpx2
import pytest
from engines import Engine

from headwater import ids


def test_a_submit_that_is_sent_again_after_each_death_of_the_api_makes_one_job(engine: Engine) -> None:
    """Once it dies before the commit, once between commit and answer; the third answer is the second's."""
    source, key = engine.source(), ids.new().hex
    for point, made in (("submit.begun", 0), ("submit.committed", 1)):
        engine.kill("api")
        dying = engine.api(failpoints=f"{point}=die")
        with pytest.raises(httpx2.TransportError):
            engine.send(source, "connection_test", key)
        engine.until(lambda dying=dying: not dying.alive)
        count = engine.one("select count(*) as n from job where data_source_id = %s", source)
        assert count == {"n": made}
    engine.worker()
    engine.api()
    answer = engine.send(source, "connection_test", key)
    assert (answer.status_code, answer.headers["Idempotency-Replayed"]) == (202, "true")
    job_id = engine.answers[key] = ids.decode("job", answer.json()["id"])
    assert engine.ended(job_id)["status"] == "succeeded"
    assert engine.one("select count(*) as n from job where data_source_id = %s", source) == {"n": 1}


@pytest.mark.long
def test_a_stream_of_events_goes_on_after_the_api_died(engine: Engine) -> None:
    """With `Last-Event-ID`, as a browser does: each event once, in order, to the last."""
    worker = engine.worker("bulk", failpoints="batch.written=die")
    job_id = engine.post(engine.source(files=40, records=5, pause_seconds=0.1), "sync")
    seen: list[int] = []
    path = f"jobs/{ids.encode('job', job_id)}/events"
    is_killed = False
    while engine.status(job_id) not in ("succeeded",) or len(seen) < 5:
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        try:
            with engine.client.stream("GET", path, headers=headers) as stream:
                for line in stream.iter_lines():
                    if line.startswith("id: "):
                        seen.append(int(line.removeprefix("id: ")))
                    if worker.reached("batch.written") and not is_killed:
                        is_killed = True
                        engine.kill("api")
        except httpx2.TransportError:
            engine.ready()
    numbers = engine.connection.execute(
        "select array_agg(number order by number) as n from event where job_id = %s", (job_id,)
    ).fetchone()
    assert numbers == {"n": seen}
