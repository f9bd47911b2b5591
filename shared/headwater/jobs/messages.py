"""What lies in Redis: messages as Celery reads them (its protocol 2), in the few fields that a worker of ours looks at.

Written here alone, by whoever rings and by the gate in front of each worker, and much cheaper than by a Celery client.
"""

import base64
from typing import Any

import orjson

from headwater import ids
from headwater.jobs.kinds import Kind


def ring(kind: Kind, job_id: str) -> bytes:
    """Rings for a job (`job_...`) on the queue of its kind."""
    headers = {
        "lang": "py",
        "task": kind.task,
        # The task's id is the job's: operators find it in Flower.
        "id": job_id,
        "root_id": job_id,
        "argsrepr": f"['{job_id}']",
        "kwargsrepr": "{}",
    }
    return envelope([[job_id], {}, {}], headers, kind.queue.value)


def envelope(body: Any, headers: dict[str, str], routing_key: str) -> bytes:
    """`body` as JSON in base64, in an envelope with a tag of its own."""
    return orjson.dumps(
        {
            "body": base64.b64encode(orjson.dumps(body)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": routing_key},
                "delivery_tag": ids.new().hex,
            },
        }
    )
