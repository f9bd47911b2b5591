"""An S3 server on loopback that checks signatures and rights, for the demo and for tests.

It is moto's S3 and nothing else of moto: the application for S3 alone is mounted, so neither its IAM nor
its own control routes (`/moto-api/reset`) can be reached. Users, buckets and objects are put straight
into moto's backends, because its API would choose the keys, and a server that is started again has to
know the old ones. Everything lives in memory.
"""

import hashlib
import json
import secrets
import socket
import string
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from moto import settings
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import BaseWSGIServer, make_server

from headwater_cli.demo import datasets
from headwater_cli.demo.files import DemoFile
from headwater_cli.ports import LOOPBACK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

REGION = "us-east-1"
BUCKET = "headwater-demo"
EMPTY_BUCKET = "headwater-demo-empty"

READ = ("s3:Get*", "s3:List*", "s3:Head*")
WRITE = (*READ, "s3:Put*", "s3:Delete*", "s3:*Multipart*")

# A constant, so that a server that is started again shows the same objects, byte for byte and date for date.
_MODIFIED_AT = datetime(2026, 1, 1, tzinfo=UTC)
_POLL_SECONDS = 0.05  # how long `close` may wait for the server's loop to notice
_POLICY = "headwater-demo"
_ALPHANUMERIC = string.ascii_letters + string.digits
_BASE32 = string.ascii_uppercase + "234567"

_ANONYMOUS = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with an access key, and the S3 actions allowed to them on every bucket (none: no rights)."""

    name: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    actions: tuple[str, ...] = READ


def new_user(name: str, *, actions: tuple[str, ...] = READ) -> User:
    """A user with a random key in AWS's format."""
    return User(
        name=name,
        access_key_id="AKIA" + "".join(secrets.choice(_BASE32) for _ in range(16)),
        secret_access_key="".join(secrets.choice(_ALPHANUMERIC) for _ in range(40)),
        actions=actions,
    )


class Server:
    """A running server; `close` stops it and takes its users and buckets away. Made by `serve`."""

    def __init__(self, port: int, users: Sequence[User], buckets: Mapping[str, Mapping[str, bytes]]) -> None:
        self.region = REGION
        self.users = {user.name: user for user in users}
        self._buckets = list(buckets)
        self._server = _listen(port)
        self.endpoint_url = f"http://{LOOPBACK}:{self._server.port}"
        # From the first request on, moto asks for a signature and for rights.
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        for user in users:
            _add_user(user)
        for bucket, objects in buckets.items():
            _s3().create_bucket(bucket, REGION)
            for key, body in objects.items():
                self.put(bucket, key, body, modified_at=_MODIFIED_AT)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="demo-bucket", daemon=True
        )
        self._thread.start()

    def put(self, bucket: str, key: str, body: bytes, *, modified_at: datetime | None = None) -> None:
        """Write an object past all rights; `modified_at` is now unless it is given."""
        # Given the etag, moto does not compute it later, in whichever request asks first: it seeks in the
        # buffer that another request may be reading.
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        stored = _s3().put_object(bucket, key, body, etag=etag, disable_notification=True)
        if modified_at is not None:
            stored.last_modified = modified_at.replace(tzinfo=None)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object past all rights."""
        _s3().delete_object(bucket, key)

    def close(self) -> None:
        """Stop answering; safe to call twice."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for user in self.users.values():
            _remove_user(user)
        for bucket in self._buckets:
            _remove_bucket(bucket)
        self.users, self._buckets = {}, []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    port: int = 0,
    *,
    users: Sequence[User] | None = None,
    buckets: Mapping[str, Mapping[str, bytes]] | None = None,
) -> Server:
    """Serve buckets ({bucket: {key: body}}, or the demo's) to users, on loopback; port 0 is a free one.

    Without `users` there are two, `reader` and `stranger`, the second without any rights. Servers of one
    process share moto's store: bucket names and user names must differ between those that run at once.
    Raises OSError when the port is taken.
    """
    if users is None:
        users = (new_user("reader"), new_user("stranger", actions=()))
    return Server(port, users, demo_buckets() if buckets is None else buckets)


def demo_buckets(corpus: Iterable[DemoFile] | None = None) -> dict[str, dict[str, bytes]]:
    """The demo's two buckets: one with the corpus (built, unless it is given), one with nothing in it."""
    files = datasets.corpus() if corpus is None else corpus
    return {BUCKET: {file.path: file.body for file in files}, EMPTY_BUCKET: {}}


class _Quiet(MotoRequestHandler):
    """No line for each request: a sync makes thousands."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def _listen(port: int) -> BaseWSGIServer:
    """Bound here, not by werkzeug: it ends the process when the port is taken."""
    with socket.create_server((LOOPBACK, port)) as listener:
        app = _signed_only(create_backend_app("s3"))
        fd = listener.fileno()
        return make_server(LOOPBACK, port, app, threaded=True, request_handler=_Quiet, fd=fd)


def _signed_only(app: Any) -> Callable[["WSGIEnvironment", "StartResponse"], Iterable[bytes]]:
    """Refuse what carries no Authorization header, as a private bucket does; moto would fail with a 500."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if "HTTP_AUTHORIZATION" in environ:
            answer: Iterable[bytes] = app(environ, start_response)
            return answer
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(_ANONYMOUS)))]
        start_response("403 Forbidden", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [_ANONYMOUS]

    return guarded


def _s3() -> Any:
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


def _iam() -> Any:
    return iam_backends[DEFAULT_ACCOUNT_ID]["aws"]


def _add_user(user: User) -> None:
    iam = _iam()
    iam.create_user(REGION, user.name)
    key = iam.create_access_key(user.name)
    iam.access_keys[user.access_key_id] = iam.access_keys.pop(key.access_key_id)
    key.access_key_id, key.secret_access_key = user.access_key_id, user.secret_access_key
    if user.actions:
        statement = {"Effect": "Allow", "Action": list(user.actions), "Resource": "*"}
        iam.put_user_policy(user.name, _POLICY, json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def _remove_user(user: User) -> None:
    iam = _iam()
    iam.delete_access_key(user.access_key_id, user.name)
    if user.actions:
        iam.delete_user_policy(user.name, _POLICY)
    iam.delete_user(user.name)


def _remove_bucket(name: str) -> None:
    """Objects first: their buffers are closed, and none is left to warn about when it is collected."""
    keys = _s3().get_bucket(name).keys
    for key in list(keys):
        keys.pop(key)
    _s3().delete_bucket(name)
