"""ETags and If-Match (RFC 9110, sections 8.8.3 and 13.1.1)."""

from starlette.requests import Request

from headwater.errors import PreconditionRequired, StaleRevision


def etag(revision: int) -> str:
    """The strong ETag of a revision of what users set."""
    return f'"r{revision}"'


def require_fresh(request: Request, revision: int, *, required: bool) -> None:
    """Check `If-Match` against the revision that counts now. Raises `PreconditionRequired`, `StaleRevision`."""
    header = request.headers.get("If-Match")
    if header is None:
        if required:
            raise PreconditionRequired
        return
    candidates = [candidate.strip() for candidate in header.split(",")]
    if "*" not in candidates and etag(revision) not in candidates:
        raise StaleRevision
