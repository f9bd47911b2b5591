"""`python -m headwater_api`: serve until told to stop."""

import contextlib

from headwater import hardening, log
from headwater.settings import ApiSettings
from headwater_api import server


def main() -> None:
    """Serve the API. SIGTERM lets running requests end, long polls for at most five seconds."""
    hardening.seal()
    settings = ApiSettings()
    log.configure("api")
    with contextlib.suppress(KeyboardInterrupt):
        server.make("headwater_api.main:app", settings).run()


if __name__ == "__main__":
    main()
