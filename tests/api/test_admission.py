"""How often somebody may come: the rate of a key over one process and several, and guesses of keys by address."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx2
import pytest
import serving
import structlog
from serving import Api

from headwater import db, ids
from headwater.access import api_keys
from headwater.access.organizations import CreatedOrganization
from headwater_api import admission, authentication
from headwater_api.admission import Buckets, RateLimiter

LIMIT = re.compile(r'"key";r=(\d+);t=(\d+)')
RATE = 100


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


Run = Callable[..., list[int]]


@pytest.fixture
def clock() -> Clock:
    """A clock of this test."""
    return Clock()


@pytest.fixture(scope="module")
def limited(start_api: Callable[..., Api]) -> Api:
    """An API that takes one request a second of a key."""
    return start_api(HEADWATER_RATE_LIMIT="1")


def until_refused(client: httpx2.Client, path: str = "me") -> tuple[list[httpx2.Response], httpx2.Response]:
    """The answers before the first 429, and that one."""
    before = []
    for _ in range(100):
        answer = client.get(path)
        if answer.status_code == 429:
            return before, answer
        before.append(answer)
    pytest.fail("everything was let in")


def test_one_request_too_many_is_told_when_to_come_again(limited: Api, organization: CreatedOrganization) -> None:
    """429 as a problem with `Retry-After`; and then it is let in."""
    with limited.client(organization.api_key) as client:
        before, refused = until_refused(client)
        assert {answer.status_code for answer in before} == {200}
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["code"] == "rate_limited"
        assert "Retry-After" in refused.json()["detail"]
        assert refused.headers["Retry-After"] == "1"
        time.sleep(1.1)
        assert client.get("me").status_code == 200


def test_every_answer_to_a_known_key_says_what_is_left(limited: Api, organization: CreatedOrganization) -> None:
    """Good ones, refused ones and errors; not those to nobody."""
    with limited.client(organization.api_key) as client:
        time.sleep(1.1)
        answers = [client.get("jobs/nothing"), *until_refused(client)[0], until_refused(client)[1]]
        assert (answers[0].status_code, answers[-1].status_code) == (404, 429)
        for answer in answers:
            assert answer.headers["RateLimit-Policy"] == '"key";q=1;w=1'
            assert LIMIT.fullmatch(answer.headers["RateLimit"])
        assert answers[-1].headers["RateLimit"] == '"key";r=0;t=1'
        for nobody in (httpx2.get(limited.url + "/me"), httpx2.get(limited.url.removesuffix("/api/v1") + "/healthz")):
            assert "RateLimit" not in nobody.headers


def test_a_key_pays_for_itself_only(
    limited: Api, organization: CreatedOrganization, other_organization: CreatedOrganization
) -> None:
    """Others go on, and what is refused costs the database nothing and is not done."""
    with limited.client(organization.api_key) as client, limited.client(other_organization.api_key) as other:
        time.sleep(1.1)
        until_refused(client)
        assert other.get("me").status_code == 200


def test_without_a_limit_nothing_is_said_of_one(api: Api, organization: CreatedOrganization) -> None:
    """The default."""
    with api.client(organization.api_key) as client:
        answers = [client.get("me") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert not [answer for answer in answers if "RateLimit" in answer.headers or "RateLimit-Policy" in answer.headers]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop to reconcile on."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def make_limiter(clock: Clock, loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., RateLimiter]]:
    """Makes what one process has."""
    made: list[RateLimiter] = []

    def make(redis_url: str = serving.NOWHERE, rate: int = RATE) -> RateLimiter:
        made.append(RateLimiter(rate, redis_url, now=clock))
        return made[-1]

    yield make
    for limiter in made:
        loop.run_until_complete(limiter.stop())


@pytest.fixture
def run(clock: Clock, loop: asyncio.AbstractEventLoop) -> Run:
    """Lets these processes run for so many seconds, each asked `tries` times in every tenth of one.

    How many they let in together, each second.
    """

    def run(limiters: list[RateLimiter], key: UUID, *, seconds: int, tries: int) -> list[int]:
        granted = []
        for _ in range(seconds):
            count = 0
            for _ in range(10):
                clock.seconds += 0.1
                count += sum(limiter.admit(key).granted for limiter in limiters for _ in range(tries))
            granted.append(count)
            for limiter in limiters:
                loop.run_until_complete(limiter.reconcile())
        return granted

    return run


def test_one_process_is_exact(clock: Clock, make_limiter: Callable[..., RateLimiter]) -> None:
    """A second's worth at once, then as many as the time brings, whatever is tried between."""
    limiter, key = make_limiter(), ids.new()
    assert sum(limiter.admit(key).granted for _ in range(10 * RATE)) == RATE
    granted = 0
    for _ in range(1000):
        clock.seconds += 0.004
        granted += sum(limiter.admit(key).granted for _ in range(3))
    assert granted in (4 * RATE - 1, 4 * RATE)  # by a rounding of floating point


def test_what_is_left_is_told(make_limiter: Callable[..., RateLimiter]) -> None:
    """`r` counts down to 0, `t` is whole seconds."""
    limiter, key = make_limiter(rate=2), ids.new()
    told = [limiter.admit(key) for _ in range(3)]
    assert [(found.granted, found.headers["RateLimit"]) for found in told] == [
        (True, '"key";r=1;t=1'),
        (True, '"key";r=0;t=1'),
        (False, '"key";r=0;t=1'),
    ]


@pytest.mark.parametrize("tries", [5, 50], ids=["a little too many", "far too many"])
def test_processes_together_stay_at_the_limit(
    valkey: str, make_limiter: Callable[..., RateLimiter], run: Run, tries: int
) -> None:
    """What four let in before they knew of each other is paid back; unreconciled it would be four times as much."""
    granted = sum(run([make_limiter(valkey) for _ in range(4)], ids.new(), seconds=40, tries=tries))
    # Above it no more than four times a full bucket and what comes in a second.
    assert 0.9 * RATE * 40 <= granted <= RATE * 40 + 4 * 2 * RATE


def test_processes_below_the_limit_refuse_nobody(
    valkey: str, make_limiter: Callable[..., RateLimiter], run: Run
) -> None:
    """Four with a fifth of it each."""
    granted = run([make_limiter(valkey) for _ in range(4)], ids.new(), seconds=10, tries=RATE // 50)
    assert granted == [4 * RATE // 5] * 10


def test_who_is_shut_out_for_longer_is_told_for_how_long(
    valkey: str, make_limiter: Callable[..., RateLimiter], run: Run
) -> None:
    """What others took has to be made up for first."""
    limiters, key = [make_limiter(valkey) for _ in range(4)], ids.new()
    run(limiters, key, seconds=3, tries=50)
    told = limiters[0].admit(key)
    assert (told.granted, told.wait_seconds > 1) == (False, True)
    assert told.headers["RateLimit"] == f'"key";r=0;t={told.wait_seconds}'


def test_a_key_that_rests_is_as_good_as_new(
    valkey: str, clock: Clock, loop: asyncio.AbstractEventLoop, make_limiter: Callable[..., RateLimiter], run: Run
) -> None:
    """Its bucket is full again, and forgotten."""
    limiter, key = make_limiter(valkey), ids.new()
    run([limiter], key, seconds=2, tries=50)
    clock.seconds += 1
    loop.run_until_complete(limiter.reconcile())
    assert sum(limiter.admit(key).granted for _ in range(2 * RATE)) == RATE


def test_while_redis_is_away_each_process_counts_for_itself(make_limiter: Callable[..., RateLimiter], run: Run) -> None:
    """Nothing fails, and the log says so once for each process."""
    with structlog.testing.capture_logs() as logged:
        granted = sum(run([make_limiter(), make_limiter()], ids.new(), seconds=5, tries=50))
    assert granted == pytest.approx(2 * (RATE + 5 * RATE), rel=0.05)
    assert [line["event"] for line in logged] == ["rate_limit.redis_away"] * 2


def test_what_was_counted_while_redis_was_away_is_not_held_against_the_others(
    valkey: str, make_limiter: Callable[..., RateLimiter], run: Run
) -> None:
    """Half a minute of it would shut them out for half a minute."""
    both, key = [make_limiter(valkey), make_limiter(valkey)], ids.new()
    run(both, key, seconds=3, tries=50)
    there, both[0]._redis = both[0]._redis, make_limiter()._redis
    run(both, key, seconds=30, tries=50)
    both[0]._redis = there
    with structlog.testing.capture_logs() as logged:
        granted = sum(run(both, key, seconds=10, tries=50))
    assert [line["event"] for line in logged] == ["rate_limit.redis_found"]
    assert granted >= 0.8 * RATE * 10


def test_buckets_are_bounded(clock: Clock) -> None:
    """However many keys or addresses come at once."""
    buckets: Buckets[str] = Buckets(1, 1, now=clock)
    for number in range(50_000):
        buckets.take(str(number))
    assert len(buckets) <= 20_000


def test_apis_on_one_redis_count_together(
    start_api: Callable[..., Api], valkey: str, organization: CreatedOrganization
) -> None:
    """Two as they are deployed: whoever used up its rate at one of them is refused by the other within seconds."""
    one, other = (start_api(HEADWATER_RATE_LIMIT="5", HEADWATER_REDIS_URL=valkey) for _ in range(2))
    with one.client(organization.api_key) as busy, other.client(organization.api_key) as quiet:
        deadline = time.monotonic() + 20
        while quiet.get("me").status_code != 429:
            assert time.monotonic() < deadline, "nobody told it"
            for _ in range(20):
                busy.get("me")
            time.sleep(0.25)  # by itself it would let in five a second


@pytest.fixture(scope="module")
def guarded(start_api: Callable[..., Api]) -> Iterator[Api]:
    """An API where five keys may be tried in vain, and hardly any more later; it looks at a good one every time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "GUESSES_PER_SECOND", 1e-6)
        patch.setattr(authentication, "REMEMBERED_SECONDS", 0.0)
        yield start_api(guesses=5, HEADWATER_TRUSTED_PROXIES="127.0.0.1")


def guess(api: Api, key: str, address: str) -> tuple[int, str]:
    """Status and code for a key that comes from an address."""
    answer = httpx2.get(api.url + "/me", headers={"Authorization": f"Bearer {key}", "X-Forwarded-For": address})
    return answer.status_code, answer.json().get("code", "")


def unknown_key() -> str:
    """Well formed, and nobody's."""
    return api_keys.issue(b"p" * 32).text


def test_guesses_cost_the_address_and_not_the_database(
    guarded: Api, organization: CreatedOrganization, database: str
) -> None:
    """Beyond the limit nothing is looked up; who was let in before goes on, and so does everybody elsewhere."""
    mine, elsewhere = "203.0.113.1", "203.0.113.2"
    assert guess(guarded, organization.api_key, mine)[0] == 200
    assert [guess(guarded, unknown_key(), mine) for _ in range(5)] == [(401, "api_key_unknown")] * 5
    with db.connect(database, application="tests") as connection:
        connection.execute("alter function api_key_read rename to api_key_hidden")
        try:
            assert guess(guarded, unknown_key(), mine) == (429, "too_many_guesses")
        finally:
            connection.execute("alter function api_key_hidden rename to api_key_read")
    assert guess(guarded, organization.api_key, mine)[0] == 200
    assert guess(guarded, unknown_key(), elsewhere) == (401, "api_key_unknown")


def test_a_refusal_of_guesses_says_what_to_do(guarded: Api) -> None:
    """A problem with `Retry-After`."""
    headers = {"X-Forwarded-For": "203.0.113.3"}
    for _ in range(6):
        answer = httpx2.get(guarded.url + "/me", headers=headers | {"Authorization": f"Bearer {unknown_key()}"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_good_keys_and_typos_are_no_guesses(guarded: Api, client: httpx2.Client) -> None:
    """Many may come from one address for the first time, and a typo is told without a look-up."""
    address = "203.0.113.4"
    keys = [client.post("api-keys", json={"name": f"key {number}", "role": "viewer"}).json() for number in range(8)]
    assert [guess(guarded, key["key"], address)[0] for key in keys] == [200] * 8
    typo = keys[0]["key"][:-1] + "!"
    assert [guess(guarded, typo, address) for _ in range(8)] == [(401, "api_key_malformed")] * 8
    assert guess(guarded, unknown_key(), address) == (401, "api_key_unknown")


def test_the_wrong_secret_of_a_known_key_is_a_guess(guarded: Api, organization: CreatedOrganization) -> None:
    """Its owner, at the same address, does not pay for it."""
    address = "203.0.113.5"
    assert guess(guarded, organization.api_key, address)[0] == 200
    body = f"hw_{organization.api_key.split('_')[1]}_{unknown_key().split('_')[2]}"
    wrong = f"{body}_{api_keys._checksum(body)}"
    assert [guess(guarded, wrong, address) for _ in range(5)] == [(401, "api_key_unknown")] * 5
    assert guess(guarded, wrong, address) == (429, "too_many_guesses")
    assert guess(guarded, organization.api_key, address)[0] == 200


def test_a_customers_ipv6_network_is_one_address(guarded: Api) -> None:
    """A /64 has more addresses than there are guesses; the next one is somebody else's."""
    ours = [f"2001:db8:0:1::{number:x}" for number in range(1, 6)]
    assert [guess(guarded, unknown_key(), address) for address in ours] == [(401, "api_key_unknown")] * 5
    assert guess(guarded, unknown_key(), "2001:db8:0:1:ffff::1") == (429, "too_many_guesses")
    assert guess(guarded, unknown_key(), "2001:db8:0:2::1") == (401, "api_key_unknown")
