"""One good request for every operation of the API, on objects of its own, so that it can be made again and again."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import making

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection

S3 = {"bucket": "bucket", "region": "eu-central-1"}

_numbers = itertools.count(1)


def fresh() -> str:
    """A name that nobody has."""
    return f"n{next(_numbers)}-{ids.new().hex[-12:]}"


@dataclass(frozen=True)
class Call:
    """A request; `path` is a template, `named` fills it."""

    method: str
    path: str
    named: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        """As the matrix names it."""
        return f"{self.method} {self.path}"

    def naming(self, **named: str) -> "Call":
        """The same request about other objects."""
        return replace(self, named=self.named | named)

    def by(self, client: httpx2.Client) -> httpx2.Response:
        """Make it."""
        return client.request(self.method, self.path.format(**self.named), **self.options)


@dataclass
class World:
    """An organization, its admin's client, and what there is to ask about. `connection` is the superuser's."""

    admin: httpx2.Client
    organization: CreatedOrganization
    connection: Connection

    def post(self, path: str, **options: Any) -> dict[str, Any]:
        """Make something."""
        answer = self.admin.post(path, **options)
        assert answer.status_code in (200, 201, 202), (path, answer.status_code, answer.text)
        made: dict[str, Any] = answer.json()
        return made

    def project(self) -> dict[str, str]:
        """{project_id} of a new one."""
        return {"project_id": self.post("projects", json={"name": fresh()})["id"]}

    def source(self, type_: str = "s3") -> dict[str, str]:
        """{project_id, data_source_id} of a new one."""
        project = self.project()
        body: dict[str, Any] = {"name": fresh(), "type": type_, "config": S3 if type_ == "s3" else {}}
        if type_ == "s3":
            body["credentials"] = {"access_key_id": "id", "secret_access_key": "secret"}
        source = self.post(f"projects/{project['project_id']}/data-sources", json=body)
        return project | {"data_source_id": source["id"]}

    def job(self, *, ended: bool = False) -> dict[str, str]:
        """{job_id} of a new one, that waits or has failed."""
        source = self.source()
        job = self.post("projects/{project_id}/data-sources/{data_source_id}/test".format(**source))
        if ended:
            self.connection.execute(
                "update job set status = 'failed', finished_at = now() where id = %s", (ids.decode("job", job["id"]),)
            )
        return {"job_id": job["id"]}

    def key(self) -> dict[str, str]:
        """{key_id} of a new one."""
        return {"key_id": self.post("api-keys", json={"name": fresh(), "role": "viewer"})["id"]}

    def member(self) -> dict[str, str]:
        """{member_id} of a new one."""
        body = {"email": f"{fresh()}@example.com", "role": "viewer"}
        return {"member_id": self.post("members", json=body)["id"]}

    def webhook(self) -> dict[str, str]:
        """{webhook_id} of a new one."""
        # The quota is small, and every test makes some.
        limit = "update organization set webhook_limit = 100000 where id = %s and webhook_limit is null"
        self.connection.execute(limit, (self.organization.organization_id,))
        return {"webhook_id": self.post("webhooks", json={"url": f"https://{fresh()}.example.com/"})["id"]}

    def delivery(self) -> dict[str, str]:
        """{webhook_id, delivery_id} of one that waits."""
        webhook = self.webhook()
        return webhook | {"delivery_id": self.post("webhooks/{webhook_id}/test".format(**webhook))["id"]}

    def item(self) -> dict[str, str]:
        """{project_id, data_source_id, item_id} of a record that was brought in."""
        source = self.source()
        source_id = ids.decode("dsrc", source["data_source_id"])
        making.bring_in(self.connection, self.organization.organization_id, source_id)
        row = self.connection.execute(
            "select max(id) as id from load where data_source_id = %s", (source_id,)
        ).fetchone()
        assert row is not None
        return source | {"item_id": ids.encode("item", ids.pack(row["id"], 1))}

    def upload(self) -> dict[str, str]:
        """{project_id, data_source_id, name} of a file that was uploaded."""
        source = self.source("file_upload")
        path = "projects/{project_id}/data-sources/{data_source_id}/uploads".format(**source)
        self.post(path, params={"name": "a.csv"}, content=b"a\n1\n")
        return source | {"name": "a.csv"}


_PROJECT = "/projects/{project_id}"
_SOURCES = _PROJECT + "/data-sources"
_SOURCE = _SOURCES + "/{data_source_id}"


def _batch(world: World) -> Call:
    """A test of a source."""
    entry = {"kind": "connection_test", "data_source_id": world.source()["data_source_id"]}
    return Call("POST", "/jobs:batch", options={"json": {"jobs": [entry]}})


def _cancel(world: World) -> Call:
    """By the id of a job that waits."""
    return Call("POST", "/jobs:cancel", options={"json": {"ids": [world.job()["job_id"]]}})


SAMPLES: dict[str, Callable[[World], Call]] = {"POST /jobs:batch": _batch, "POST /jobs:cancel": _cancel}


def _sample(
    operation: str, named: Callable[[World], dict[str, str]] = lambda _: {}, **options: Callable[[], Any]
) -> None:
    """One good request: what its path names, and options that are made anew each time."""
    method, path = operation.split(" ")
    SAMPLES[operation] = lambda world: Call(
        method, path, named(world), {name: make() for name, make in options.items()}
    )


def _name() -> dict[str, Any]:
    return {"name": fresh()}


def _invitation() -> dict[str, Any]:
    return {"email": f"{fresh()}@example.com", "role": "viewer"}


def _any_revision() -> dict[str, str]:
    return {"If-Match": "*"}


def _takes_uploads(world: World) -> dict[str, str]:
    return world.source("file_upload")


def _has_ended(world: World) -> dict[str, str]:
    return world.job(ended=True)


def _content() -> bytes:
    return b"a\n1\n"


_sample("GET /me")
_sample("GET /organization")
_sample("PATCH /organization", json=_name)
_sample("GET /members")
_sample("POST /members", json=_invitation)
_sample("GET /members/{member_id}", World.member)
_sample("PATCH /members/{member_id}", World.member, json=_name)
_sample("DELETE /members/{member_id}", World.member)
_sample("GET /api-keys")
_sample("POST /api-keys", json=lambda: {"name": fresh(), "role": "viewer"})
_sample("GET /api-keys/{key_id}", World.key)
_sample("DELETE /api-keys/{key_id}", World.key)
_sample("POST /api-keys/{key_id}/rotate", World.key)
_sample("GET /audit-log")
_sample("GET /data-source-types")
_sample("GET /data-source-types/{type}", lambda _: {"type": "s3"})
_sample("GET /projects")
_sample("POST /projects", json=_name)
_sample(f"GET {_PROJECT}", World.project)
_sample(f"PATCH {_PROJECT}", World.project, json=_name, headers=_any_revision)
_sample(f"DELETE {_PROJECT}", World.project, headers=_any_revision)
_sample("GET /data-sources")
_sample(f"GET {_SOURCES}", World.project)
_sample(f"POST {_SOURCES}", World.project, json=lambda: {"name": fresh(), "type": "s3", "config": S3})
_sample(f"POST {_SOURCES}/test", World.project, json=lambda: {"type": "s3", "config": S3})
_sample(f"GET {_SOURCE}", World.source)
_sample(f"PATCH {_SOURCE}", World.source, json=_name, headers=_any_revision)
_sample(f"PUT {_SOURCE}", World.source, json=_name, headers=_any_revision)
_sample(f"DELETE {_SOURCE}", World.source, headers=_any_revision)
_sample(f"GET {_SOURCE}/credentials", World.source)
_sample(f"PUT {_SOURCE}/credentials", World.source, json=lambda: {"access_key_id": "another"})
_sample(f"DELETE {_SOURCE}/credentials", World.source)
_sample(f"GET {_SOURCE}/events", World.source)
_sample(f"POST {_SOURCE}/test", World.source)
_sample(f"GET {_SOURCE}/files", World.item)
_sample(f"POST {_SOURCE}/files", World.source)
_sample(f"GET {_SOURCE}/tables", World.source)
_sample(f"POST {_SOURCE}/tables", World.source)
_sample(f"POST {_SOURCE}/sync", World.source)
_sample(f"GET {_SOURCE}/items", World.item)
_sample(f"GET {_SOURCE}/items/{{item_id}}", World.item)
_sample(f"GET {_SOURCE}/rejects", World.item)
_sample(f"GET {_SOURCE}/uploads", World.upload)
_sample(f"POST {_SOURCE}/uploads", _takes_uploads, params=lambda: {"name": "b.csv"}, content=_content)
_sample(f"GET {_SOURCE}/uploads/{{name}}", World.upload)
_sample(f"PUT {_SOURCE}/uploads/{{name}}", World.upload, content=_content)
_sample(f"DELETE {_SOURCE}/uploads/{{name}}", World.upload)
_sample("GET /webhooks", World.webhook)
_sample("POST /webhooks", World.webhook, json=lambda: {"url": f"https://{fresh()}.example.com/"})
_sample("GET /webhooks/{webhook_id}", World.webhook)
_sample("PATCH /webhooks/{webhook_id}", World.webhook, json=lambda: {"description": fresh()})
_sample("DELETE /webhooks/{webhook_id}", World.webhook)
_sample("POST /webhooks/{webhook_id}/rotate", World.webhook)
_sample("POST /webhooks/{webhook_id}/test", World.webhook)
_sample("GET /webhooks/{webhook_id}/deliveries", World.delivery)
_sample("GET /webhooks/{webhook_id}/deliveries/{delivery_id}", World.delivery)
_sample("POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", World.delivery)
_sample("GET /jobs")
_sample("GET /jobs/{job_id}", World.job)
_sample("GET /jobs/{job_id}/events", _has_ended)
_sample("GET /jobs/{job_id}/attempts", World.job)
_sample("GET /jobs/{job_id}/rejects", World.job)
_sample("POST /jobs/{job_id}/cancel", World.job)
_sample("POST /jobs/{job_id}/retry", _has_ended)
