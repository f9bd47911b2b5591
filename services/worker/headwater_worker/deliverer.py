"""The deliverer, a process of its own: tells webhooks that jobs have ended, until each has heard of it.

Any number of instances may run. It stands on the workers' side of the wall: it opens the secrets that messages are
signed with, and reaches customers' servers through egress. A delivery is leased while it is sent; whoever dies between
the sending and the record leaves it to be sent again with the same id.

One thread, with the one connection, claims, opens, signs and records; requests run in threads that know nothing else.
"""

import signal
import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg

from headwater import __version__, clock, db, failpoints, hardening, ids, log, masking
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.db import Connection, Row
from headwater.errors import VaultError
from headwater.settings import DatabaseSettings, EgressSettings, VaultSettings, WebhookSettings
from headwater.vault import keyring, unseal
from headwater.webhooks import messages, signing, statements
from headwater.webhooks.statements import Disabled, Status
from headwater_worker import environment, keys, posting
from headwater_worker.egress import Policy, second_line
from headwater_worker.posting import Answer

_TICK_SECONDS: Final = 0.5
_PAUSE_AFTER_FAULT_SECONDS: Final = 1.0
# Beyond the longest request, for what stands before and behind it.
_LEASE_SLACK_SECONDS: Final = 30.0
# Not the server's doing: it is not said to be failing.
_OURS: Final = frozenset(
    {"webhook_deleted", "webhook_disabled", "cannot_unseal", "key_unavailable", "weak_key", "key_refused"}
)
# Asked again, the answer would be the same.
_FINAL: Final = frozenset({"webhook_deleted", "webhook_disabled", "gone"})

_log = log.get(__name__)


@dataclass(frozen=True)
class _Request:
    """Where a delivery goes, and what is sent."""

    url: str
    headers: dict[str, str]
    body: bytes


class Deliverer:
    """One instance. `run` returns when `stop` is set and what was under way has ended."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._settings = WebhookSettings()
        self._database_url = DatabaseSettings().database_url
        self._policy = Policy.parse(EgressSettings().egress_allow)
        self._vault = keyring.configured(VaultSettings())
        self._under_way: dict[Future[Answer], Row] = {}

    def run(self) -> None:
        """Deliver, whatever happens to Postgres meanwhile."""
        with ThreadPoolExecutor(self._settings.webhook_slots, "delivery") as threads:
            while not self._is_done():
                try:
                    with db.connect(
                        self._database_url, application="headwater-deliverer", statement_timeout_seconds=30
                    ) as connection:
                        while not self._is_done():
                            self._start_due(connection, threads)
                            self._record_answers(connection)
                except psycopg.OperationalError as error:
                    _log.warning("deliverer.database_away", error=type(error).__name__)
                except Exception:
                    _log.exception("deliverer.fault")
                if self._stop.wait(_PAUSE_AFTER_FAULT_SECONDS):
                    return

    def _is_done(self) -> bool:
        return self._stop.is_set() and not self._under_way

    def _start_due(self, connection: Connection, threads: ThreadPoolExecutor) -> None:
        free = self._settings.webhook_slots - len(self._under_way)
        if self._stop.is_set() or free == 0:
            return
        for row in db.run(connection, statements.take_back()).fetchall():
            _log.warning("delivery.lease_lost", delivery_id=ids.encode("dlv", row["id"]), status=row["status"])
        claim = statements.claim(
            token=ids.new(),
            limit=free,
            endpoint_limit=self._settings.webhook_slots_per_endpoint,
            lease_seconds=self._settings.webhook_timeout_seconds + _LEASE_SLACK_SECONDS,
        )
        for row in db.run(connection, claim).fetchall():
            failpoints.reach("delivery.claimed")
            found = self._request(connection, row)
            if isinstance(found, _Request):
                self._under_way[threads.submit(self._post, found)] = row
            else:
                self._record(connection, row, Answer(None, found, 0))

    def _post(self, request: _Request) -> Answer:
        return posting.post(
            request.url,
            headers=request.headers,
            body=request.body,
            policy=self._policy,
            timeout_seconds=self._settings.webhook_timeout_seconds,
        )

    def _record_answers(self, connection: Connection) -> None:
        """Wait a moment for an answer, and record those that are there."""
        if not self._under_way:
            self._stop.wait(_TICK_SECONDS)
            return
        done, _ = futures.wait(self._under_way, timeout=_TICK_SECONDS, return_when=futures.FIRST_COMPLETED)
        for future in done:
            failpoints.reach("delivery.answered")
            if (fault := future.exception()) is not None:
                # Its lease ends, and it is sent again.
                del self._under_way[future]
                raise fault
            self._record(connection, self._under_way[future], future.result())
            # Not before: what Postgres did not take is said again when it is back.
            del self._under_way[future]

    def _request(self, connection: Connection, row: Row) -> _Request | str:
        """What to send, or the code of why not. The transaction that reads the secrets says so to the audit log."""
        organization_id, webhook_id = row["organization_id"], row["webhook_id"]
        with connection.transaction():
            db.set_organization(connection, organization_id)
            read = statements.endpoint(organization_id=organization_id, webhook_id=webhook_id)
            endpoint = db.run(connection, read).fetchone()
            if endpoint is None or endpoint["deleted"]:
                return "webhook_deleted"
            if not endpoint["enabled"]:
                return "webhook_disabled"
            sealed = unseal.fetch(connection, organization_id=organization_id, subject_id=webhook_id)
            opening = audit_log.entry(
                organization_id=organization_id,
                actor_id=None,
                act=Act.WEBHOOK_UNSEAL,
                subject_id=webhook_id,
                fields=sealed.fields,
                details={"delivery_id": str(row["id"]), "key_ids": sorted(map(str, sealed.key_ids))},
            )
            db.run(connection, opening)
        try:
            secrets = unseal.unseal_all(sealed, provider=self._vault, target=signing.PURPOSE)
        except VaultError as error:
            return error.code
        newest = endpoint["secret_number"]
        numbers = (newest, newest - 1) if endpoint["previous_counts"] else (newest,)
        signed_with = [secrets[name] for name in map(signing.field, numbers) if name in secrets]
        if not signed_with:
            return "cannot_unseal"
        with masking.mask_for(signed_with):
            return _signed(endpoint["url"], row, signed_with)

    def _record(self, connection: Connection, row: Row, answer: Answer) -> None:
        status, delay_seconds = _verdict(row["tries"], answer)
        disabled: Disabled | None = None
        with connection.transaction():
            db.set_organization(connection, row["organization_id"])
            record = statements.record(
                organization_id=row["organization_id"],
                delivery_id=row["id"],
                token=row["token"],
                status=status,
                delay_seconds=delay_seconds,
                duration_ms=answer.duration_ms,
                status_code=answer.status_code,
                error_code=answer.error_code,
            )
            recorded = db.run(connection, record).fetchone() is not None
            if recorded:
                disabled = self._judge(connection, row, answer, status)
        _log.info(
            "delivery.recorded" if recorded else "delivery.not_recorded",
            delivery_id=ids.encode("dlv", row["id"]),
            webhook_id=ids.encode("hook", row["webhook_id"]),
            attempt=row["attempt"],
            status=status,
            status_code=answer.status_code,
            code=answer.error_code,
            duration_ms=answer.duration_ms,
        )
        if disabled is not None:
            _log.warning("webhook.disabled", webhook_id=ids.encode("hook", row["webhook_id"]), reason=disabled)

    def _judge(self, connection: Connection, row: Row, answer: Answer, status: Status) -> Disabled | None:
        """What the answer says of the webhook; why it is switched off, if it is."""
        where: dict[str, Any] = {"organization_id": row["organization_id"], "webhook_id": row["webhook_id"]}
        if answer.error_code in _OURS:
            return None
        if answer.error_code is None:
            db.run(connection, statements.heard(**where))
            return None
        db.run(connection, statements.missed(**where))
        if status != "failed":
            return None
        gone = answer.error_code == "gone"
        reason: Disabled = "gone" if gone else "failing"
        days = 0 if gone else self._settings.webhook_disable_days
        if db.run(connection, statements.disable(**where, reason=reason, failing_days=days)).fetchone() is None:
            return None
        entry = audit_log.entry(
            organization_id=row["organization_id"],
            actor_id=None,
            act=Act.WEBHOOK_DISABLE,
            subject_id=row["webhook_id"],
            fields=["enabled"],
            details={"reason": reason, "delivery_id": str(row["id"])},
        )
        db.run(connection, entry)
        return reason


def _signed(url: str, row: Row, signed_with: list[str]) -> _Request:
    body = orjson.dumps(messages.message(row))
    timestamp = int(clock.now().timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"headwater/{__version__}",
        **signing.headers(ids.encode("dlv", row["id"]), timestamp, body, signed_with),
    }
    return _Request(url, headers, body)


def _verdict(tries: int, answer: Answer) -> tuple[Status, float]:
    """What becomes of the delivery, and after how many seconds it is tried again."""
    if answer.error_code is None:
        return "succeeded", 0.0
    if answer.error_code in _FINAL or tries >= statements.MOST_TRIES:
        return "failed", 0.0
    return "pending", max(float(statements.RETRY_SECONDS[tries - 1]), answer.retry_after_seconds or 0.0)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    environment.clean()
    hardening.seal()
    log.configure("deliverer")
    keys.require_strong()
    second_line.install(
        Policy.parse(EgressSettings().egress_allow),
        own_endpoints=[second_line.endpoint(url) for url in (DatabaseSettings().database_url, *keys.endpoints())],
    )
    stop = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stop.set())
    _log.info("deliverer.started", version=__version__)
    Deliverer(stop).run()
    _log.info("deliverer.stopped")


if __name__ == "__main__":
    main()
