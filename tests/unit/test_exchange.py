import itertools
import json
from dataclasses import FrozenInstanceError, dataclass, field
from email.utils import formatdate

import pytest
import requests

from imburse_auth import ApiKey
from imburse_auth.errors import (
    SecretsUnavailable,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from imburse_auth.exchange import Attempt, Exchange
from imburse_auth.retry import Deadline
from tests.fakes import BASE_URL, Answered, Clock, FakeImburse, secret


@dataclass
class Bench:
    """An exchange with a fake Imburse, on a clock of its own."""

    clock: Clock = field(default_factory=Clock)
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.imburse = FakeImburse(Clock(self.clock.now))
        self.imburse.clock = self.clock
        self.exchange = Exchange(
            self.imburse.transport(), clock=self.clock, monotonic=self.clock, sleep=self.clock.sleep
        )
        self.members = secret()
        self.key = ApiKey.from_secret(json.dumps(self.members))
        self.imburse.accept(self.members)
        self.rereads = 0
        self.fresh: ApiKey | Exception = self.key
        self.fresh_url = BASE_URL

    def reread(self, refused: ApiKey) -> tuple[ApiKey, str]:
        self.rereads += 1
        if isinstance(self.fresh, Exception):
            raise self.fresh
        return self.fresh, self.fresh_url

    def run(self, seconds: float = 20.0, key: ApiKey | None = None) -> str:
        deadline = Deadline.after(seconds, self.clock)
        exchanged = self.exchange.access_token(
            key or self.key, BASE_URL, deadline=deadline, reread=self.reread, on_attempt=self.attempts.append
        )
        return exchanged.token.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_key_is_exchanged_for_a_token(bench: Bench) -> None:
    assert bench.run() in bench.imburse.tokens
    assert bench.imburse.requests[0].url == BASE_URL + "/v1/identity/hmac"
    assert [attempt.error_code for attempt in bench.attempts] == [None]
    assert bench.rereads == 0


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_throttling_and_faults_are_tried_again_each_time_with_a_fresh_nonce(bench: Bench, status: int) -> None:
    bench.imburse.script = [lambda _: bench.imburse.refuse(status)] * 2
    assert bench.run() in bench.imburse.tokens
    headers = [request.headers["Authorization"] for request in bench.imburse.requests]
    assert len(headers) == len(set(headers)) == 3
    assert len(bench.clock.slept) == 2


@pytest.mark.parametrize("failure", [requests.ConnectionError(), requests.ConnectTimeout(), requests.ReadTimeout()])
def test_a_lost_connection_is_tried_again(bench: Bench, failure: Exception) -> None:
    bench.imburse.script = [lambda _: failure]
    assert bench.run() in bench.imburse.tokens
    assert [attempt.error_code for attempt in bench.attempts] == ["upstream_unavailable", None]


@pytest.mark.parametrize(("status", "kind"), [(429, UpstreamThrottled), (503, UpstreamUnavailable)])
def test_tries_are_bounded(bench: Bench, status: int, kind: type[Exception]) -> None:
    bench.imburse.always = lambda _: bench.imburse.refuse(status)
    with pytest.raises(kind):
        bench.run()
    assert len(bench.imburse.requests) == 4


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409])
def test_other_refusals_are_final(bench: Bench, status: int) -> None:
    bench.imburse.always = lambda _: bench.imburse.refuse(status)
    with pytest.raises(UpstreamRejected) as caught:
        bench.run()
    assert len(bench.imburse.requests) == 1
    assert caught.value.upstream is not None
    assert caught.value.upstream.status == status


def test_an_answer_that_cannot_be_used_is_final(bench: Bench) -> None:
    bench.imburse.always = lambda _: bench.imburse.answer(b"<html>")
    with pytest.raises(UpstreamProtocol):
        bench.run()
    assert len(bench.imburse.requests) == 1


def test_backoff_grows_with_full_jitter(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[float, float]] = []

    def longest(low: float, high: float) -> float:
        spans.append((low, high))
        return high

    monkeypatch.setattr("imburse_auth.retry._jitter", longest)
    bench.imburse.script = [lambda _: bench.imburse.refuse(500)] * 3
    bench.run()
    assert spans == [(0, 0.2), (0, 0.4), (0, 0.8)]
    assert bench.clock.slept == [0.2, 0.4, 0.8]


def test_retry_after_is_honoured(bench: Bench) -> None:
    bench.imburse.script = [lambda _: bench.imburse.refuse(429, retry_after="3")]
    bench.run()
    assert bench.clock.slept == [3]


def test_a_retry_after_beyond_the_deadline_is_handed_to_the_caller_at_once(bench: Bench) -> None:
    bench.imburse.script = [lambda _: bench.imburse.refuse(429, retry_after="60")]
    with pytest.raises(UpstreamThrottled) as caught:
        bench.run(seconds=20)
    assert caught.value.retry_after_seconds == 60
    assert bench.clock.slept == []


def test_everything_ends_with_the_deadline(bench: Bench) -> None:
    def slow(_: requests.PreparedRequest) -> Exception:
        bench.clock.now += 4.0
        return requests.ReadTimeout()

    bench.imburse.always = slow
    started = bench.clock.now
    with pytest.raises(UpstreamUnavailable):
        bench.run(seconds=9)
    assert bench.clock.now - started <= 13


@pytest.mark.parametrize("skew", [-3600, -301, 301, 3600, 86_000])
def test_a_clock_that_is_wrong_is_corrected_once_and_for_later_exchanges(bench: Bench, skew: float) -> None:
    bench.imburse.clock = lambda: bench.clock.now + skew
    assert bench.run() in bench.imburse.tokens
    assert len(bench.imburse.requests) == 2
    assert bench.exchange.now(BASE_URL) == pytest.approx(bench.clock.now + skew, abs=1)
    assert bench.run() in bench.imburse.tokens
    assert len(bench.imburse.requests) == 3
    assert bench.rereads == 0


def test_a_clock_that_another_thread_corrects_meanwhile_is_no_refusal_of_the_key(bench: Bench) -> None:
    bench.imburse.clock = lambda: bench.clock.now + 3600

    def corrected_meanwhile(_: requests.PreparedRequest) -> Answered:
        assert bench.run() in bench.imburse.tokens  # another thread, while this one's 401 is on its way
        return bench.imburse.refuse(401)

    bench.imburse.script = [corrected_meanwhile]
    assert bench.run() in bench.imburse.tokens
    assert bench.rereads == 0


def test_a_clock_that_comes_right_again_is_followed(bench: Bench) -> None:
    bench.imburse.clock = lambda: bench.clock.now + 3600
    bench.run()
    bench.imburse.clock = bench.clock
    assert bench.run() in bench.imburse.tokens
    assert bench.exchange.now(BASE_URL) == pytest.approx(bench.clock.now, abs=1)


@pytest.mark.parametrize("skew", [-62, 61])
def test_a_401_with_a_date_more_than_a_minute_off_is_the_clocks_doing(bench: Bench, skew: int) -> None:
    date = formatdate(bench.clock.now + skew, usegmt=True)
    bench.imburse.script = [lambda _: bench.imburse.refuse(401, date=date)]
    assert bench.run() in bench.imburse.tokens
    assert bench.rereads == 0
    assert bench.exchange.now(BASE_URL) == pytest.approx(bench.clock.now + skew, abs=1)


@pytest.mark.parametrize(
    "date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 1900 00:00:00 GMT", "Mon, 01 Mar 2021 00:00:00 GMT"]
)
def test_a_date_that_no_clock_could_be_off_by_is_not_believed(bench: Bench, date: str) -> None:
    bench.imburse.script = [lambda _: bench.imburse.refuse(401, date=date)]
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert bench.exchange.now(BASE_URL) == bench.clock.now
    bench.clock.now += 31
    assert bench.run() in bench.imburse.tokens


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_401_without_a_date_says_nothing_about_the_clock(bench: Bench, date: str) -> None:
    bench.imburse.script = [lambda _: bench.imburse.refuse(401, date=date)]
    with pytest.raises(UpstreamRejected, match="read afresh"):
        bench.run()
    assert bench.exchange.now(BASE_URL) == bench.clock.now


def test_a_clock_that_says_something_else_each_time_says_nothing_about_the_key(bench: Bench) -> None:
    wrong = [formatdate(bench.clock.now + skew, usegmt=True) for skew in (3600, -3600)]
    bench.imburse.script = [
        lambda _: bench.imburse.refuse(401, date=wrong[0]),
        lambda _: bench.imburse.refuse(401, date=wrong[1]),
    ]
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert bench.run() in bench.imburse.tokens, "the key is not held back"
    assert bench.rereads == 0


def test_a_new_key_that_was_refused_elsewhere_is_not_tried_again(bench: Bench) -> None:
    other = ApiKey.from_secret(json.dumps(secret()))
    bench.imburse.keys.clear()
    bench.fresh = other
    with pytest.raises(UpstreamRejected):
        bench.run(key=other)
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert len(bench.imburse.requests) == 2


def test_a_correlation_id_that_holds_the_token_is_dropped(bench: Bench) -> None:
    for echoed in ("abc", "x-abc-x", "b"):
        bench.imburse.always = lambda _, echoed=echoed: bench.imburse.answer(
            {"accessToken": "abc", "expires": 1614351800}, x_correlation_id=echoed
        )
        deadline = Deadline.after(20, bench.clock)
        assert bench.exchange.access_token(bench.key, BASE_URL, deadline=deadline).correlation_id is None


def test_one_hosts_clock_is_not_anothers(bench: Bench) -> None:
    bench.imburse.clock = lambda: bench.clock.now + 3600
    bench.run()
    assert bench.exchange.now("https://other.test") == bench.clock.now


@pytest.mark.parametrize("skew", [-86_400, -61, 61, 86_400])
def test_a_clock_that_is_off_by_as_much_as_a_day_is_believed(bench: Bench, skew: int) -> None:
    bench.clock.now = float(int(bench.clock.now))
    bench.imburse.clock = lambda: bench.clock.now + skew
    date = formatdate(bench.clock.now + skew, usegmt=True)
    bench.imburse.script = [lambda _: bench.imburse.refuse(401, date=date)]
    bench.run()
    assert bench.exchange.now(BASE_URL) == bench.clock.now + skew


@pytest.mark.parametrize("skew", [-86_401, -60, 60, 86_401])
def test_a_clock_that_is_off_by_a_minute_or_more_than_a_day_is_left_as_it_is(bench: Bench, skew: int) -> None:
    bench.clock.now = float(int(bench.clock.now))
    bench.imburse.clock = lambda: bench.clock.now + skew
    date = formatdate(bench.clock.now + skew, usegmt=True)
    bench.imburse.script = [lambda _: bench.imburse.refuse(401, date=date)]
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert bench.exchange.now(BASE_URL) == bench.clock.now


def test_a_date_within_a_minute_explains_no_401(bench: Bench) -> None:
    bench.imburse.keys.clear()
    bench.imburse.clock = lambda: bench.clock.now + 59
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert bench.exchange.now(BASE_URL) == bench.clock.now


def test_a_refused_key_is_read_again_and_the_new_one_used(bench: Bench) -> None:
    members = secret()
    bench.imburse.keys.clear()
    bench.imburse.accept(members)
    bench.fresh = ApiKey.from_secret(json.dumps(members))
    assert bench.run() in bench.imburse.tokens
    assert (bench.rereads, len(bench.imburse.requests)) == (1, 2)


def test_a_refused_key_that_did_not_change_is_not_tried_again(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected, match="read afresh") as caught:
        bench.run()
    assert (bench.rereads, len(bench.imburse.requests)) == (1, 1)
    assert caught.value.upstream is not None
    assert caught.value.upstream.as_dict() == {
        "status": 401,
        "errorCode": "HMAC_REFUSED",
        "correlationId": "0HLPSRAQ7S0I6:00000002",
    }


def test_a_new_key_that_is_refused_too_ends_it(bench: Bench) -> None:
    bench.imburse.keys.clear()
    bench.fresh = ApiKey.from_secret(json.dumps(secret()))
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert (bench.rereads, len(bench.imburse.requests)) == (1, 2)


def test_a_wrong_clock_and_a_rotated_key_at_once_are_both_put_right(bench: Bench) -> None:
    members = secret()
    bench.imburse.keys.clear()
    bench.imburse.accept(members)
    bench.imburse.clock = lambda: bench.clock.now + 3600
    bench.fresh = ApiKey.from_secret(json.dumps(members))
    assert bench.run() in bench.imburse.tokens
    assert len(bench.imburse.requests) == 3


def test_a_clock_that_never_agrees_does_not_loop(bench: Bench) -> None:
    skews = itertools.count(1)
    bench.imburse.always = lambda _: bench.imburse.refuse(
        401, date=formatdate(bench.clock.now + 3600 * next(skews), usegmt=True)
    )
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert len(bench.imburse.requests) == 2


def test_a_key_that_stays_refused_is_left_alone_for_30_seconds(bench: Bench) -> None:
    bench.imburse.keys.clear()
    for _ in range(3):
        with pytest.raises(UpstreamRejected):
            bench.run()
    assert len(bench.imburse.requests) == 1
    bench.clock.now += 29.9
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert len(bench.imburse.requests) == 1
    bench.clock.now += 0.2
    bench.imburse.accept(bench.members)
    assert bench.run() in bench.imburse.tokens


def test_a_key_that_replaces_a_refused_one_is_used_within_10_seconds(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected):
        bench.run()
    members = secret(publicKey="replaced")
    bench.imburse.accept(members)
    bench.fresh = ApiKey.from_secret(json.dumps(members))
    bench.clock.now += 10
    assert bench.imburse.tokens[bench.run()] == "replaced"


def test_while_a_key_is_refused_it_is_read_again_each_5_seconds_and_no_oftener(bench: Bench) -> None:
    bench.imburse.keys.clear()
    for _ in range(29):
        with pytest.raises(UpstreamRejected):
            bench.run()
        bench.clock.now += 1
    assert (bench.rereads, len(bench.imburse.requests)) == (6, 1)


def test_a_key_in_the_place_of_a_refused_one_that_was_refused_too_is_not_tried(bench: Bench) -> None:
    bench.imburse.keys.clear()
    other = ApiKey.from_secret(json.dumps(secret()))
    for key in (other, bench.key):
        bench.fresh = key
        with pytest.raises(UpstreamRejected):
            bench.run(key=key)
    bench.fresh = other
    bench.clock.now += 5
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert (bench.rereads, len(bench.imburse.requests)) == (3, 2)


def test_who_cannot_read_a_refused_key_again_is_refused_and_takes_nobodys_turn_to_read_it(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected):
        bench.run()
    bench.clock.now += 5
    with pytest.raises(UpstreamRejected):
        bench.exchange.access_token(bench.key, BASE_URL, deadline=Deadline.after(20, bench.clock))
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert (bench.rereads, len(bench.imburse.requests)) == (2, 1)


def test_a_key_is_tried_whose_refusal_ends_while_it_is_read_again(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected):
        bench.run()
    bench.imburse.accept(bench.members)
    bench.clock.now += 29

    def slow(refused: ApiKey) -> tuple[ApiKey, str]:
        bench.clock.now += 1
        return refused, BASE_URL

    deadline = Deadline.after(20, bench.clock)
    exchanged = bench.exchange.access_token(bench.key, BASE_URL, deadline=deadline, reread=slow)
    assert exchanged.token.value in bench.imburse.tokens


def test_a_thread_that_is_refused_after_another_does_not_read_the_key_again(bench: Bench) -> None:
    bench.imburse.keys.clear()

    def refused_meanwhile(_: requests.PreparedRequest) -> Answered:
        with pytest.raises(UpstreamRejected):
            bench.run()  # another thread's whole exchange, while this one's answer is on its way
        return bench.imburse.refuse(401)

    bench.imburse.script = [refused_meanwhile]
    with pytest.raises(UpstreamRejected):
        bench.run()
    assert (bench.rereads, len(bench.imburse.requests)) == (1, 2)


def test_another_key_is_not_held_back_by_a_refused_one(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected):
        bench.run()
    members = secret(publicKey=bench.members["publicKey"])
    bench.imburse.accept(members)
    assert bench.run(key=ApiKey.from_secret(json.dumps(members))) in bench.imburse.tokens


def test_a_key_that_cannot_be_read_again_says_so(bench: Bench) -> None:
    bench.imburse.keys.clear()
    bench.fresh = SecretsUnavailable("down")
    with pytest.raises(SecretsUnavailable):
        bench.run()


def test_a_token_that_is_expired_by_the_hosts_clock_is_refused(bench: Bench) -> None:
    bench.imburse.always = lambda _: bench.imburse.answer({"accessToken": "abc", "expires": int(bench.clock.now)})
    with pytest.raises(UpstreamProtocol, match="expired"):
        bench.run()


def test_without_a_way_to_read_the_key_again_a_refusal_is_final(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected, match="read afresh"):
        bench.exchange.access_token(bench.key, BASE_URL, deadline=Deadline.after(20, bench.clock))
    assert len(bench.imburse.requests) == 1


def test_the_correlation_id_of_the_caller_goes_along_and_the_hosts_own_comes_back(bench: Bench) -> None:
    deadline = Deadline.after(20, bench.clock)
    bench.imburse.always = lambda _: bench.imburse.answer(
        {"accessToken": "abc", "expires": int(bench.clock.now) + 1800}, x_correlation_id="theirs"
    )
    ours = bench.exchange.access_token(bench.key, BASE_URL, deadline=deadline, correlation_id="ours-1")
    nobodys = bench.exchange.access_token(bench.key, BASE_URL, deadline=deadline)
    assert (ours.correlation_id, nobodys.correlation_id) == ("theirs", "theirs")
    assert [request.headers.get("x-correlation-id") for request in bench.imburse.requests] == ["ours-1", None]
    assert {request.method for request in bench.imburse.requests} == {"POST"}


def test_a_final_refusal_hides_the_one_behind_it_from_tracebacks(bench: Bench) -> None:
    bench.imburse.keys.clear()
    with pytest.raises(UpstreamRejected) as caught:
        bench.run()
    assert caught.value.__suppress_context__


def test_a_clock_that_changes_twice_still_says_what_the_host_said(bench: Bench) -> None:
    skews = itertools.count(1)
    bench.imburse.always = lambda _: bench.imburse.refuse(
        401, date=formatdate(bench.clock.now + 3600 * next(skews), usegmt=True)
    )
    with pytest.raises(UpstreamRejected) as caught:
        bench.run()
    assert caught.value.upstream is not None
    assert caught.value.upstream.status == 401
    assert caught.value.__suppress_context__


def test_each_try_says_how_long_it_took(bench: Bench) -> None:
    def slow(_: requests.PreparedRequest) -> Answered:
        bench.clock.now += 1.5
        return bench.imburse.refuse(503)

    bench.imburse.script = [slow]
    bench.run()
    assert [attempt.seconds for attempt in bench.attempts] == [1.5, 0.0]


def test_how_long_a_try_took_is_told_rightly_soon_after_the_machine_was_started_too(bench: Bench) -> None:
    monotonic = Clock(1.0)
    exchange = Exchange(bench.imburse.transport(), clock=bench.clock, monotonic=monotonic)

    def slow(request: requests.PreparedRequest) -> Answered:
        monotonic.now += 1.5
        return bench.imburse.obey(request)

    bench.imburse.script = [slow]
    deadline = Deadline.after(20, bench.clock)
    exchange.access_token(bench.key, BASE_URL, deadline=deadline, on_attempt=bench.attempts.append)
    assert [attempt.seconds for attempt in bench.attempts] == [1.5]


def test_every_argument_may_be_given_by_its_name(bench: Bench) -> None:
    exchange = Exchange(transport=bench.imburse.transport(), clock=bench.clock)
    deadline = Deadline.after(20, bench.clock)
    assert exchange.access_token(api_key=bench.key, base_url=BASE_URL, deadline=deadline).base_url == BASE_URL


def test_what_was_exchanged_does_not_change(bench: Bench) -> None:
    exchanged = bench.exchange.access_token(bench.key, BASE_URL, deadline=Deadline.after(20, bench.clock))
    for thing, name in ((exchanged, "base_url"), (Attempt(1.0, None), "seconds")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, "another")


def test_a_remembered_refusal_says_what_the_host_said_and_ends_after_30_seconds_sharp(bench: Bench) -> None:
    bench.imburse.keys.clear()
    for _ in range(2):
        with pytest.raises(UpstreamRejected) as caught:
            bench.run()
        assert caught.value.upstream is not None
        assert caught.value.upstream.status == 401
    assert len(bench.imburse.requests) == 1
    bench.clock.now += 30
    bench.imburse.accept(bench.members)
    assert bench.run() in bench.imburse.tokens


def test_a_second_refused_key_does_not_make_the_first_forgotten_before_its_time(bench: Bench) -> None:
    bench.imburse.keys.clear()
    other = ApiKey.from_secret(json.dumps(secret()))
    for key in (other, bench.key, other, bench.key):
        bench.fresh = key
        with pytest.raises(UpstreamRejected):
            bench.run(key=key)
    assert len(bench.imburse.requests) == 2


@pytest.mark.parametrize("seconds", [30, 31])
def test_refusals_that_are_over_do_not_pile_up(bench: Bench, seconds: float) -> None:
    bench.imburse.keys.clear()
    for _ in range(3):
        key = bench.fresh = ApiKey.from_secret(json.dumps(secret()))
        with pytest.raises(UpstreamRejected):
            bench.run(key=key)
        bench.clock.now += seconds
    assert list(bench.exchange._refused_until) == list(bench.exchange._reread_at) == [(BASE_URL, key)]
