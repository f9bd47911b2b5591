"""`python -m headwater_worker.flower`: Flower on the worker's Celery app, read-only, behind a password.

User and password come from the environment, as the broker does: `ps` shows arguments to everybody.
"""

import os

from headwater import hardening
from headwater.settings import FlowerSettings
from headwater_worker.app import app


def main() -> None:
    """Serve until SIGTERM."""
    hardening.seal()
    settings = FlowerSettings()
    # Its threads each hold one connection while they wait for another: out of the worker's small pool, they would wait
    # for each other for ever, and no event would come through.
    app.conf.broker_pool_limit = None
    # Flower's own variable: the option would stand in the arguments.
    os.environ["FLOWER_BASIC_AUTH"] = f"{settings.flower_user}:{settings.flower_password}"
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
