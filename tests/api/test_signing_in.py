"""Sign-in through HTTP with the tokens of a real provider: who is let in, as whom, and for how long."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import making
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.settings import OidcSettings
from headwater_api import admission, provider_keys, signing_in
from headwater_api.admission import Strangers
from headwater_api.denials import Denials

from .oidc_provider import AUDIENCE, Provider, SigningKey, make_key

ORGANIZATION_CLAIM = "headwater_organization"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    """What the module's provider signs with."""
    return make_key("first")


@pytest.fixture(scope="module")
def provider(key: SigningKey) -> Iterator[Provider]:
    """A provider that stays."""
    provider = Provider()
    provider.start(key)
    yield provider
    provider.stop()


@pytest.fixture
def passing_provider() -> Iterator[Provider]:
    """A provider that the test starts and stops."""
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], provider: Provider) -> Any:
    """An API where members have the role that they have in Headwater."""
    return start_api(**settings(provider))


@pytest.fixture(scope="module")
def roles_api(start_api: Callable[..., Any], provider: Provider, organization: CreatedOrganization) -> Any:
    """An API where the provider gives roles, and both claims hold the provider's own words."""
    return start_api(
        **settings(provider),
        HEADWATER_OIDC_ORGANIZATION_CLAIM="tenant",
        HEADWATER_OIDC_ORGANIZATIONS=json.dumps({"acme": ids.encode("org", organization.organization_id)}),
        HEADWATER_OIDC_ROLE_CLAIM="groups",
        HEADWATER_OIDC_ROLES=json.dumps({"owners": "admin", "crew": "operator", "readers": "viewer"}),
    )


def settings(provider: Provider) -> dict[str, str]:
    """What an API has to know of a provider."""
    return {"HEADWATER_OIDC_ISSUER": provider.issuer, "HEADWATER_OIDC_AUDIENCE": AUDIENCE}


def subject() -> str:
    """Somebody new."""
    return f"subject-{ids.new().hex}"


def belonging(organization: CreatedOrganization) -> dict[str, str]:
    """The claim that says for which organization a token is."""
    return {ORGANIZATION_CLAIM: ids.encode("org", organization.organization_id)}


def invite(connection: Connection, organization: CreatedOrganization, role: str = "operator") -> tuple[UUID, str]:
    """A member who never signed in: id and address."""
    member_id = ids.new()
    email = f"{member_id.hex}@example.com"
    connection.execute(
        "insert into member (id, organization_id, email, name, role) values (%s, %s, %s, 'Grace', %s)",
        (member_id, organization.organization_id, email, role),
    )
    return member_id, email


def me(api: Any, token: str, **headers: str) -> httpx2.Response:
    """`GET /me` with a token."""
    with api.client(token) as client:
        answer: httpx2.Response = client.get("me", headers=headers)
        return answer


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code."""
    return answer.status_code, answer.json()["code"]


def assert_denied(connection: Connection, member_id: UUID, reason: str) -> None:
    """The audit log has it, a minute later (a tenth of a second in these tests)."""
    query = "select details ->> 'reason' as reason from audit_entry where actor_id = %s and act = 'access.deny'"
    deadline = time.monotonic() + 5
    while not (found := connection.execute(query, (member_id,)).fetchall()):
        assert time.monotonic() < deadline, "no entry"
        time.sleep(0.05)
    assert {row["reason"] for row in found} == {reason}


def entries(connection: Connection, member_id: UUID) -> list[dict[str, Any]]:
    """What the audit log has on a member."""
    return connection.execute(
        "select act, actor_id, key_id, request_id, address, fields, details from audit_entry where subject_id = %s"
        " order by number",
        (member_id,),
    ).fetchall()


def eventually(ask: Callable[[], httpx2.Response], status: int, seconds: float) -> httpx2.Response:
    """The first answer with this status; it must come within so many seconds."""
    deadline = time.monotonic() + seconds
    while (answer := ask()).status_code != status and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer.status_code == status, answer.text
    return answer


def test_a_verified_address_takes_its_invitation(
    api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """`/me` tells who; the member is bound to the subject, and the audit log says by which request."""
    member_id, email = invite(connection, organization)
    who = subject()
    token = provider.token(sub=who, email=email.upper(), email_verified=True, **belonging(organization))
    answer = me(api, token, **{"X-Request-Id": "the-first-sign-in"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["member"] == {"id": ids.encode("user", member_id), "name": "Grace", "email": email}
    assert (found["key_id"], found["role"], found["organization"]["name"]) == (None, "operator", "Acme")
    assert "data_source:sync" in found["permissions"]
    assert "data_source:write" not in found["permissions"]
    bound = connection.execute("select issuer, subject from member where id = %s", (member_id,)).fetchone()
    assert bound == {"issuer": provider.issuer, "subject": who}
    [entry] = entries(connection, member_id)
    assert entry == {
        "act": "member.update",
        "actor_id": member_id,
        "key_id": None,
        "request_id": "the-first-sign-in",
        "address": "127.0.0.1",
        "fields": ["subject"],
        "details": {"by": "identity_provider"},
    }


def test_a_bound_member_needs_no_address_any_more(
    api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """Issuer and subject say who it is; nothing more is written."""
    member_id, email = invite(connection, organization)
    who = subject()
    first = provider.token(sub=who, email=email, email_verified=True, **belonging(organization))
    assert me(api, first).status_code == 200
    again = me(api, provider.token(sub=who, email="new@example.com", **belonging(organization)))
    assert again.json()["member"]["email"] == email
    assert len(entries(connection, member_id)) == 1


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_is_not_verified_takes_no_invitation(
    api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection, verified: Any
) -> None:
    """401 `not_a_member`, which says what to ask for; the invitation stays."""
    member_id, email = invite(connection, organization)
    claims = {"sub": subject(), "email": email, "email_verified": verified, **belonging(organization)}
    answer = me(api, provider.token(**claims))
    assert refusal(answer) == (401, "not_a_member")
    assert "invite" in answer.json()["detail"]
    assert "WWW-Authenticate" in answer.headers
    row = connection.execute("select subject from member where id = %s", (member_id,)).fetchone()
    assert row == {"subject": None}


def test_an_invitation_is_taken_once(
    api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """Whoever has the address later at the provider is somebody else."""
    _, email = invite(connection, organization)
    claims = {"email": email, "email_verified": True, **belonging(organization)}
    assert me(api, provider.token(sub=subject(), **claims)).status_code == 200
    assert refusal(me(api, provider.token(sub=subject(), **claims))) == (401, "not_a_member")


def test_an_invitation_is_for_one_organization(
    api: Any,
    provider: Provider,
    organization: CreatedOrganization,
    other_organization: CreatedOrganization,
    connection: Connection,
) -> None:
    """A token for another organization finds nobody there, and an organization that is not there has no members."""
    _, email = invite(connection, organization)
    claims = {"sub": subject(), "email": email, "email_verified": True}
    nowhere = {ORGANIZATION_CLAIM: ids.encode("org", ids.new())}
    assert refusal(me(api, provider.token(**claims, **belonging(other_organization)))) == (401, "not_a_member")
    assert refusal(me(api, provider.token(**claims, **nowhere))) == (401, "not_a_member")


@pytest.mark.parametrize("role", [None, "viewer"])
def test_the_first_requests_of_a_newcomer_may_come_together(
    database: str, organization: CreatedOrganization, connection: Connection, role: str | None
) -> None:
    """The second one waits for the first, which takes an invitation or makes a member, and finds what it made."""
    _, email = invite(connection, organization)
    claims = {
        "organization": organization.organization_id,
        "who": subject(),
        "email": email if role is None else f"new-{email}",
        "role": role,
    }

    def sign_in(connection: Connection) -> dict[str, Any]:
        call = "select member_sign_in(%(organization)s, 'i', %(who)s, %(email)s, 'n', %(role)s, 'r', 'a') as member"
        row = connection.execute(call, claims).fetchone()
        assert row is not None
        found: dict[str, Any] = row["member"]
        return found

    def waits() -> bool:
        waiting = "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
        return connection.execute(waiting, (second.info.backend_pid,)).fetchone() is not None

    api_login = making.as_service(database, "api")
    with (
        db.connect(api_login, application="tests") as first,
        db.connect(api_login, application="tests") as second,
        ThreadPoolExecutor() as pool,
    ):
        with first.transaction():
            made = sign_in(first)
            later = pool.submit(sign_in, second)
            while not waits():
                assert not later.done(), later.result()
        assert (made["state"], later.result()) == ("usable", made)
    assert len(entries(connection, UUID(made["member_id"]))) == 1


def test_a_removed_member_is_out_within_five_seconds(
    api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """401 `not_a_member`, the address notwithstanding, until there is a new invitation."""
    member_id, email = invite(connection, organization)
    claims = {"sub": subject(), "email": email, "email_verified": True, **belonging(organization)}
    token = provider.token(**claims)
    assert me(api, token).status_code == 200
    connection.execute("update member set removed_at = now() where id = %s", (member_id,))
    answer = eventually(lambda: me(api, token), 401, 5)
    assert answer.json()["code"] == "not_a_member"
    assert refusal(me(api, provider.token(**claims))) == (401, "not_a_member")
    assert_denied(connection, member_id, "not_a_member")
    connection.execute(
        "insert into member (id, organization_id, email, name, role) values (%s, %s, %s, 'Grace', 'viewer')",
        (ids.new(), organization.organization_id, email),
    )
    assert me(api, provider.token(**claims)).json()["role"] == "viewer"


def test_a_removed_member_stays_out_whatever_the_provider_says(
    roles_api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """A role lets strangers in, and nobody who was shown the door."""
    claims = {"sub": subject(), "email": f"{subject()}@example.com", "email_verified": True, "tenant": "acme"}
    assert me(roles_api, provider.token(**claims, groups="owners")).status_code == 200
    connection.execute("update member set removed_at = now() where subject = %s", (claims["sub"],))
    answer = me(roles_api, provider.token(**claims, groups="owners"))
    assert refusal(answer) == (401, "not_a_member")
    assert "no longer" in answer.json()["detail"]


def test_nobody_signs_in_to_a_suspended_organization(
    api: Any, provider: Provider, other_organization: CreatedOrganization, connection: Connection
) -> None:
    """401 `organization_suspended` within five seconds, until it is lifted."""
    member_id, email = invite(connection, other_organization)
    token = provider.token(sub=subject(), email=email, email_verified=True, **belonging(other_organization))
    assert me(api, token).status_code == 200
    suspend = "update organization set suspended_at = {} where id = %s"
    connection.execute(suspend.format("now()"), (other_organization.organization_id,))
    answer = eventually(lambda: me(api, token), 401, 5)
    assert answer.json()["code"] == "organization_suspended"
    assert_denied(connection, member_id, "organization_suspended")
    connection.execute(suspend.format("null"), (other_organization.organization_id,))
    assert me(api, token).status_code == 200


def test_a_token_is_good_until_it_expires_and_not_a_moment_longer(
    api: Any, provider: Provider, key: SigningKey, organization: CreatedOrganization, connection: Connection
) -> None:
    """It is remembered for less than the usual few seconds where its own end is nearer."""
    _, email = invite(connection, organization)
    ends_at = int(time.time()) + 4
    claims = {"iss": provider.issuer, "aud": AUDIENCE, "sub": subject(), "exp": ends_at, **belonging(organization)}
    token = key.sign({**claims, "email": email, "email_verified": True})
    assert me(api, token).status_code == 200
    while me(api, token).status_code == 200:
        time.sleep(0.05)
    assert abs(datetime.now(UTC).timestamp() - ends_at) < 1
    assert refusal(me(api, token)) == (401, "token_expired")


def test_tokens_that_are_not_good_are_held_against_the_address(
    start_api: Callable[..., Any],
    provider: Provider,
    organization: CreatedOrganization,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As keys are; a token that was good a moment ago goes on to work."""
    monkeypatch.setattr(admission, "GUESSES_PER_SECOND", 1e-6)
    monkeypatch.setattr(signing_in, "_REMEMBERED_SECONDS", 0.0)
    api = start_api(guesses=3, **settings(provider))
    _, email = invite(connection, organization)
    token = provider.token(sub=subject(), email=email, email_verified=True, **belonging(organization))
    assert me(api, token).status_code == 200
    assert [refusal(me(api, token + "x")) for _ in range(3)] == [(401, "token_invalid")] * 3
    assert refusal(me(api, token + "y")) == (429, "too_many_guesses")
    assert me(api, token).status_code == 200


def test_a_token_is_looked_up_now_and_then_and_few_are_remembered(
    provider: Provider, organization: CreatedOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same token again costs nothing; many others make room by forgetting."""
    monkeypatch.setattr(signing_in, "_REMEMBERED_TOKENS", 2)
    looked_up = []

    async def call(statement: db.Statement) -> list[db.Row]:
        looked_up.append(statement.parameters["subject"])
        found = {"state": "usable", "organization_name": "Acme", "member_id": ids.new().hex, "name": "n", "email": "e"}
        return [{"member": {**found, "role": "viewer"}}]

    async def never(organization_id: UUID, statement: db.Statement) -> list[db.Row]:
        raise AssertionError(statement)

    async def act(sign_in: Any) -> None:
        for who in ("a", "a", "b", "a", "c", "c", "a"):
            await sign_in.actor(tokens[who], request_id="r", address=None)
        await sign_in.stop()

    tokens = {who: provider.token(sub=who, **belonging(organization)) for who in "abc"}
    settings = OidcSettings(oidc_issuer=provider.issuer, oidc_audience=AUDIENCE)
    asyncio.run(act(signing_in.configured(settings, call, Denials(never), Strangers())))
    assert looked_up == ["a", "b", "c", "a"]


def test_a_role_of_the_provider_makes_a_member(
    roles_api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """A stranger with a verified address; of several roles the highest counts, words of others' count for nothing."""
    claims = {"sub": subject(), "email": f"{subject()}@example.com", "email_verified": True, "name": "Lin"}
    answer = me(roles_api, provider.token(**claims, tenant=["acme"], groups=["readers", "choir", "crew", "admin"]))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["member"]["name"], found["member"]["email"]) == ("Lin", claims["email"])
    assert found["role"] == "operator"
    [entry] = entries(connection, ids.decode("user", found["member"]["id"]))
    assert (entry["act"], entry["fields"]) == ("member.create", ["email", "name", "role", "subject"])


def test_a_role_of_the_provider_changes_a_member(
    roles_api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """With the next token, which is audited; an invitation's role gives way too."""
    member_id, email = invite(connection, organization, role="viewer")
    claims = {"sub": subject(), "email": email, "email_verified": True, "tenant": "acme"}
    assert me(roles_api, provider.token(**claims, groups="owners")).json()["role"] == "admin"
    assert me(roles_api, provider.token(**claims, groups="readers")).json()["role"] == "viewer"
    assert [(entry["act"], entry["fields"]) for entry in entries(connection, member_id)] == [
        ("member.update", ["subject", "role"]),
        ("member.update", ["role"]),
    ]


@pytest.mark.parametrize("groups", ["choir", "admin", [], [["owners"]], None, {"owners": True}, 1])
def test_whoever_has_no_role_of_ours_is_not_let_in(
    roles_api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection, groups: Any
) -> None:
    """Not even an invited member: the provider gives the roles."""
    _, email = invite(connection, organization)
    claims = {"sub": subject(), "email": email, "email_verified": True, "tenant": "acme"}
    answer = me(roles_api, provider.token(**claims, groups=groups))
    assert refusal(answer) == (401, "token_invalid")
    assert "`groups`" in answer.json()["detail"]


@pytest.mark.parametrize("tenant", ["rival", "", ["acme", "rival"], ["acme", "acme"], None, {"acme": 1}])
def test_a_token_names_one_organization(roles_api: Any, provider: Provider, tenant: Any) -> None:
    """401 with the name of the claim, not with what stood in it."""
    claims = {"sub": subject(), "email": f"{subject()}@example.com", "email_verified": True}
    answer = me(roles_api, provider.token(**claims, tenant=tenant, groups="owners"))
    assert refusal(answer) == (401, "token_invalid")
    assert "`tenant`" in answer.json()["detail"]


def test_without_maps_the_claims_hold_our_own_words(
    start_api: Callable[..., Any], provider: Provider, organization: CreatedOrganization
) -> None:
    """The organization's id, and `admin`, `operator` or `viewer`."""
    api = start_api(**settings(provider), HEADWATER_OIDC_ROLE_CLAIM="role")
    claims = {"sub": subject(), "email": f"{subject()}@example.com", "email_verified": True}
    token = provider.token(**claims, **belonging(organization), role=["viewer", "owner"])
    assert me(api, token).json()["role"] == "viewer"
    assert refusal(me(api, provider.token(**claims, headwater_organization="acme", role="viewer")))[0] == 401


def test_a_service_without_an_address_is_nobody(roles_api: Any, provider: Provider) -> None:
    """A role alone makes no member: nobody could tell who that is."""
    answer = me(roles_api, provider.token(sub=subject(), tenant="acme", groups="owners"))
    assert refusal(answer) == (401, "not_a_member")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", 7, "n" * 201])
def test_a_name_that_cannot_be_kept_gives_way_to_another(roles_api: Any, provider: Provider, name: Any) -> None:
    """`preferred_username`, then what stands before the @."""
    email = f"{subject()}@example.com"
    claims = {"email": email, "email_verified": True, "tenant": "acme", "groups": "crew", "name": name}
    found = me(roles_api, provider.token(sub=subject(), **claims, preferred_username="lin"))
    assert found.json()["member"]["name"] == "lin", found.text
    email = f"{subject()}@example.com"
    found = me(roles_api, provider.token(sub=subject(), **{**claims, "email": email}))
    assert found.json()["member"]["name"] == email.partition("@")[0], found.text


def test_an_actor_without_a_key_writes_and_is_audited(
    api: Any, provider: Provider, organization: CreatedOrganization, connection: Connection
) -> None:
    """An admin makes a project and a key; both entries name the member and no key."""
    member_id, email = invite(connection, organization, role="admin")
    token = provider.token(sub=subject(), email=email, email_verified=True, **belonging(organization))
    with api.client(token) as client:
        assert client.post("projects", json={"name": subject()}).status_code == 201
        assert client.post("api-keys", json={"name": "n", "role": "viewer"}).status_code == 201
    acts = connection.execute("select act, key_id from audit_entry where actor_id = %s", (member_id,)).fetchall()
    assert {(entry["act"], entry["key_id"]) for entry in acts} == {
        ("member.update", None),
        ("project.create", None),
        ("api_key.create", None),
    }


def test_keys_work_beside_tokens(api: Any, organization: CreatedOrganization) -> None:
    """What starts with `hw_` is a key, and a typo in it is told as one."""
    assert me(api, organization.api_key).json()["key_id"].startswith("key_")
    assert refusal(me(api, organization.api_key[:-1])) == (401, "api_key_malformed")
    assert refusal(me(api, "abc")) == (401, "token_invalid")


def test_without_a_provider_a_token_is_no_key(start_api: Callable[..., Any], provider: Provider) -> None:
    """As it always was."""
    assert refusal(me(start_api(), provider.token())) == (401, "api_key_malformed")


def test_without_any_keys_tokens_have_to_wait(
    start_api: Callable[..., Any],
    passing_provider: Provider,
    key: SigningKey,
    organization: CreatedOrganization,
    connection: Connection,
) -> None:
    """503 with `Retry-After` while API keys work; once the provider is there, nothing has to be started again."""
    passing_provider.start(key)
    _, email = invite(connection, organization)
    token = passing_provider.token(sub=subject(), email=email, email_verified=True, **belonging(organization))
    passing_provider.stop()
    api = start_api(**settings(passing_provider))
    answer = me(api, token)
    assert refusal(answer) == (503, "identity_provider_unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert me(api, organization.api_key).status_code == 200
    passing_provider.start(key)
    eventually(lambda: me(api, token), 200, provider_keys.PAUSE_SECONDS + 3)


def test_new_keys_need_no_restart_and_old_ones_end(
    start_api: Callable[..., Any],
    passing_provider: Provider,
    organization: CreatedOrganization,
    connection: Connection,
) -> None:
    """A key of another kind under another id; what the old one signed is over as soon as the new one is heard of."""
    passing_provider.start(make_key("old"))
    api = start_api(**settings(passing_provider))
    _, email = invite(connection, organization)
    claims = {"sub": subject(), "email": email, "email_verified": True, **belonging(organization)}
    assert me(api, passing_provider.token(**claims)).status_code == 200
    unused = passing_provider.token(**claims)
    passing_provider.stop()
    passing_provider.start(make_key("new", "ES256"))
    fresh = passing_provider.token(**claims)
    eventually(lambda: me(api, fresh), 200, provider_keys.PAUSE_SECONDS + 3)
    assert refusal(me(api, unused)) == (401, "token_invalid")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_provider_that_is_away_hurts_no_token_of_a_known_key(
    start_api: Callable[..., Any],
    passing_provider: Provider,
    organization: CreatedOrganization,
    connection: Connection,
    algorithm: str,
) -> None:
    """Whatever it is signed with: new tokens and new members are let in, and an unknown key is no reason to wait."""
    key = make_key("known", algorithm)
    passing_provider.start(key)
    api = start_api(**settings(passing_provider))
    _, email = invite(connection, organization)
    claims = {"sub": subject(), "email": email, "email_verified": True, **belonging(organization)}
    assert me(api, passing_provider.token(**claims)).status_code == 200
    _, second_email = invite(connection, organization)
    token = passing_provider.token(**{**claims, "sub": subject(), "email": second_email})
    passing_provider.stop()
    assert me(api, token).status_code == 200
    unknown = key.sign({"iss": passing_provider.issuer, "aud": AUDIENCE, "sub": "s", "exp": 9_999_999_999}, kid="other")
    assert refusal(me(api, unknown)) == (401, "token_invalid")
