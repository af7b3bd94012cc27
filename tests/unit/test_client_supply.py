"""Tokens taken ahead: each used once, by threads and forks, and none near its end."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from imburse_auth.client import Vended, VendingFailed, sources
from imburse_auth.client.patience import PerProcess
from imburse_auth.client.supply import TokenSupply
from tests.client_wire import CREDENTIAL, CountingSource, answer, failing
from tests.fakes import NOW, Clock
from tests.processes import wait_until


def supply(source: Any, clock: Clock | None = None, **options: Any) -> TokenSupply:
    return TokenSupply(CREDENTIAL, source, clock=clock or Clock(), **options)


def taken(tokens: TokenSupply) -> str:
    return tokens.take().vended.access_token


def test_one_at_a_time_is_the_default() -> None:
    source = CountingSource()
    tokens = supply(source)
    assert [taken(tokens), taken(tokens)] == ["token-1", "token-2"]
    assert source.asked == [(CREDENTIAL, 1, 300)] * 2


def test_a_batch_is_used_up_before_the_next_is_asked_for() -> None:
    source = CountingSource()
    tokens = supply(source, ahead=3, minimum_lifetime_seconds=600)
    assert [taken(tokens) for _ in range(4)] == ["token-1", "token-2", "token-3", "token-4"]
    assert source.asked == [(CREDENTIAL, 3, 600)] * 2


def test_a_partial_batch_is_used_as_it_came() -> None:
    source = CountingSource()
    source.most = 2
    tokens = supply(source, ahead=5)
    assert [taken(tokens) for _ in range(3)] == ["token-1", "token-2", "token-3"]
    assert len(source.asked) == 2


def test_a_token_near_its_end_is_dropped() -> None:
    clock, source = Clock(), CountingSource()
    tokens = supply(source, clock, ahead=3, margin_seconds=100)
    assert taken(tokens) == "token-1"
    clock.now = NOW + 1700
    assert taken(tokens) == "token-2"
    clock.now = NOW + 1701
    assert taken(tokens) == "token-4"


@pytest.mark.parametrize("wrong_by_seconds", [-86_400, 86_400])
def test_a_clock_of_ours_that_is_wrong_drops_nothing_too_soon_or_too_late(wrong_by_seconds: int) -> None:
    clock = Clock(NOW + wrong_by_seconds)
    tokens = supply(CountingSource(), clock, ahead=3)
    assert [taken(tokens), taken(tokens)] == ["token-1", "token-2"]
    clock.now += 1741
    assert taken(tokens) == "token-4"


def test_a_source_that_does_not_say_what_is_left_is_taken_by_its_expiry() -> None:
    class Plain:
        def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
            return [Vended(CREDENTIAL, int(NOW) + 1800, "https://x.test", {}, f"t{number}") for number in range(count)]

    clock = Clock()
    tokens = supply(Plain(), clock, ahead=2)
    taken(tokens)
    assert taken(tokens) == "t1"
    taken(tokens)
    clock.now = NOW + 1800
    assert taken(tokens) == "t0"


def test_a_token_given_back_is_given_out_next_and_lives_no_longer_for_it() -> None:
    clock = Clock()
    tokens = supply(CountingSource(), clock)
    held = tokens.take()
    for seconds in (0, 900, 1700):
        clock.now = NOW + seconds
        tokens.give_back(held)
        assert tokens.take() == held
    tokens.give_back(held)
    clock.now = NOW + 1741
    assert taken(tokens) == "token-2"


def test_two_hundred_takes_of_twenty_threads_are_two_hundred_tokens() -> None:
    source = CountingSource()
    tokens = supply(source, ahead=10)
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: taken(tokens), range(200)))
    assert len(set(got)) == 200
    assert len(source.asked) == 20  # no batch more than was needed: no herd


def test_while_one_thread_asks_the_others_wait_for_its_batch() -> None:
    source, go = CountingSource(), threading.Event()
    source.before = lambda: go.wait(10)
    tokens = supply(source, ahead=20)
    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(taken, tokens) for _ in range(20)]
        wait_until(lambda: bool(source.asked), "somebody asks")
        go.set()
        assert len({future.result(timeout=10) for future in futures}) == 20
    assert len(source.asked) == 1


def test_single_tokens_are_asked_for_side_by_side() -> None:
    source, together = CountingSource(), threading.Barrier(20)
    source.before = lambda: together.wait(10)
    tokens = supply(source)
    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(lambda _: taken(tokens), range(20)))) == 20


def test_who_waited_for_a_batch_that_failed_is_told_so_at_once() -> None:
    source, go = CountingSource(), threading.Event()

    def fail() -> None:
        go.wait(10)
        failing()()

    source.before = fail
    tokens = supply(source, ahead=20)
    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(taken, tokens) for _ in range(20)]
        wait_until(lambda: bool(source.asked), "somebody asks")
        wait_until(lambda: all(future.running() for future in futures), "the others wait")
        go.set()
        failures = [future.exception(timeout=10) for future in futures]
    assert all(isinstance(failure, VendingFailed) for failure in failures)
    assert len(set(map(id, failures))) == 20  # one each: a shared one would collect the tracebacks of all
    assert len(source.asked) <= 10  # all but those who came late: twenty would mean that each asked for itself
    source.before = lambda: None
    assert taken(tokens) == "token-1"


def test_who_waited_for_a_thread_that_died_tries_itself() -> None:
    source, go = CountingSource(), threading.Event()

    def die_once() -> None:
        if len(source.asked) == 1:
            go.wait(10)
            raise MemoryError  # no VendingFailed: it says nothing about the next try

    source.before = die_once
    tokens = supply(source, ahead=2)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(taken, tokens) for _ in range(3)]
        wait_until(lambda: bool(source.asked) and all(future.running() for future in futures), "one asks, two wait")
        go.set()
        failures = [future.exception(timeout=10) for future in futures]
    assert sorted(type(failure).__name__ for failure in failures) == ["MemoryError", "NoneType", "NoneType"]


def test_a_source_that_gives_nothing_is_an_unexpected_answer() -> None:
    source = CountingSource()
    source.most = 0
    with pytest.raises(VendingFailed, match="unexpected_answer"):
        taken(supply(source))


def _take_in_child(tokens: TokenSupply, results: Any) -> None:
    results.send([taken(tokens) for _ in range(2)])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_none_of_its_parents_tokens() -> None:
    source = CountingSource()
    tokens = supply(source, ahead=3)
    parents = [taken(tokens)]
    context = multiprocessing.get_context("fork")
    results, to_results = context.Pipe(duplex=False)
    # The lock is held at the fork, as another thread may hold it: the child must not wait for it.
    with tokens._state().lock:
        child = context.Process(target=_take_in_child, args=(tokens, to_results))
        child.start()
        answered = results.poll(10)
        if not answered:
            child.kill()
        child.join(10)
    assert answered, "the child waits for its parent's lock"
    childs = results.recv()
    results.close()
    to_results.close()
    parents += [taken(tokens), taken(tokens)]
    assert parents == ["token-1", "token-2", "token-3"]
    assert childs == ["token-4", "token-5"]  # the child's copy of the source counts on from the fork


def test_a_forked_child_opens_connections_of_its_own() -> None:
    made = PerProcess(object)
    parents = made.get()
    assert made.get() is parents
    context = multiprocessing.get_context("fork")
    results, to_results = context.Pipe(duplex=False)
    child = context.Process(target=lambda: to_results.send(made.get() is parents))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while other tests' threads may still end
        child.start()
    assert results.poll(10)
    assert results.recv() is False
    child.join(10)
    results.close()
    to_results.close()


def test_threads_that_begin_at_once_find_one_source_and_waste_no_token() -> None:
    made: list[CountingSource] = []
    together = threading.Barrier(5)

    def make(_environ: object) -> CountingSource:
        together.wait(10)
        made.append(CountingSource())
        return made[-1]

    tokens = supply(None, ahead=5)
    with mock.patch.object(sources, "source_from_env", make), ThreadPoolExecutor(5) as pool:
        assert len(set(pool.map(lambda _: taken(tokens), range(5)))) == 5
    assert [count for source in made for _, count, _ in source.asked] == [5]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"ahead": 0}, "ahead"),
        ({"ahead": 501}, "ahead"),
        ({"margin_seconds": -1}, "margin_seconds"),
        ({"margin_seconds": 301}, "margin_seconds"),
        ({"minimum_lifetime_seconds": 30}, "margin_seconds"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        supply(CountingSource(), **options)


def test_the_environments_source_is_looked_for_at_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VENDING_API", raising=False)
    monkeypatch.delenv("VENDING_FUNCTION", raising=False)
    tokens = TokenSupply(CREDENTIAL)
    with pytest.raises(ValueError, match=r"VENDING_API or VENDING_FUNCTION"):
        tokens.take()


# One vended token


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"accessToken": None}, "accessToken"),
        ({"accessToken": "other"}, "Authorization"),
        ({"accessToken": 7}, "accessToken"),
        ({"expires": "1614351800"}, "expires"),
        ({"expires": True}, "expires"),
        ({"expiresIn": None}, "expiresIn"),
        ({"credential": None}, "credential"),
        ({"baseUrl": "http://sandbox.imburse.test"}, "baseUrl"),
        ({"baseUrl": "https://user@sandbox.imburse.test"}, "baseUrl"),
        ({"baseUrl": None}, "baseUrl"),
        ({"headers": None}, "headers"),
        ({"headers": []}, "headers"),
        ({"headers": {"x-account-id": "a"}}, "headers"),
        ({"headers": {"Authorization": "Bearer token-1", "x-account-id": "a\r\nX-Evil: 1"}}, "headers"),
        ({"headers": {"Authorization": "Bearer token-1", "x-account-id": 7}}, "headers"),
        ({"headers": {"Authorization": "Bearer token-1", "x evil": "a"}}, "headers"),
    ],
)
def test_an_answer_that_is_no_vend_is_refused_by_field_and_shows_no_value(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(VendingFailed) as caught:
        Vended.from_answer(answer(**changes))
    assert caught.value.code == "unexpected_answer"
    assert field in str(caught.value)
    assert "token-1" not in str(caught.value)


def test_a_vended_token_shows_itself_in_no_repr() -> None:
    vended = Vended.from_answer(answer())
    assert "token-1" not in repr(vended)
    assert "account-1" not in repr(vended)
    assert len({vended, Vended.from_answer(answer())}) == 1
