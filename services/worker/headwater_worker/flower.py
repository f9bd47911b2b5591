"""`python -m headwater_worker.flower`: Flower on the worker's Celery app, read-only, behind a password.

User and password come from the environment, as the broker does: `ps` shows arguments to everybody. What workers say
comes through the gate; what the pages may load and run is told to the browser all the same.
"""

import base64
import hashlib
import os
from typing import Any, Final

import flower.events
import flower.urls
from celery.events import EventReceiver
from tornado.httputil import HTTPHeaders
from tornado.web import OutputTransform

from headwater import hardening
from headwater.settings import FlowerSettings
from headwater_worker.app import app

# The one script that stands in a page of Flower's own.
_SCRIPT: Final = b"\nvar autorefresh = 1;\n"
_SCRIPT_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT).digest()).decode()
_SECURITY: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self' 'sha256-{_SCRIPT_HASH}'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Headers(OutputTransform):
    """Puts them on every answer, whoever gives it."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers.update(_SECURITY)
        return super().transform_first_chunk(status_code, headers, chunk, finishing)


class _Receiver(EventReceiver):  # type: ignore[misc]
    """Waits for the next heartbeat: to ask for one is a command that workers refuse and count."""

    def wakeup_workers(self, channel: Any = None) -> None:
        """Nothing."""


def main() -> None:
    """Serve until SIGTERM."""
    hardening.seal()
    settings = FlowerSettings()
    # Its threads each hold one connection while they wait for another: out of the worker's small pool, they would wait
    # for each other for ever, and no event would come through.
    app.conf.broker_pool_limit = None
    # Flower's own variable: the option would stand in the arguments.
    os.environ["FLOWER_BASIC_AUTH"] = f"{settings.flower_user}:{settings.flower_password}"
    flower.urls.settings["transforms"] = [_Headers]
    flower.events.EventReceiver = _Receiver
    app.start(
        [
            "flower",
            f"--address={settings.flower_host}",
            f"--port={settings.flower_port}",
            "--read_only=True",
        ]
    )


if __name__ == "__main__":
    main()
