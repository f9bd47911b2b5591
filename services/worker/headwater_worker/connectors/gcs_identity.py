"""The worker's own identity in Google Cloud, asked for at the metadata server, of machines and of GKE alike.

Only where the operator allows it. Google's own chain is not gone through: it would also take key files, and it asks
for more than a token.
"""

from datetime import UTC, datetime
from typing import Any, Final

from google.auth import credentials as google_credentials

from headwater_worker.connectors import gcs_errors, platform
from headwater_worker.connectors.gcs_session import SCOPE
from headwater_worker.connectors.platform import Request
from headwater_worker.egress import second_line

_URL: Final = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token"


class OwnIdentity(google_credentials.Credentials):
    """Tokens of the service account that the worker runs as."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def refresh(self, request: Any) -> None:  # noqa: ARG002 - it leads through the job's proxy
        """Get a token. Raises `ConnectorError`."""
        try:
            token = platform.ask(Request(_URL, {"scopes": SCOPE}, {"Metadata-Flavor": "Google"}))
        except LookupError as error:
            raise gcs_errors.no_identity() from error
        # google-auth compares with a time that knows no zone.
        self.token, self.expiry = token.text, datetime.fromtimestamp(token.ends_at, UTC).replace(tzinfo=None)


def endpoint() -> tuple[str, int]:
    """Host and port of what will be asked."""
    return second_line.endpoint(_URL)
