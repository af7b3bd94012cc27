"""Every operation of the table on a DynamoDB that is atomic, and what a DynamoDB that is down, slow or mad looks like."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import pytest

from imburse_auth.aws import Aws
from tests import dynalite_server
from tests.dynalite_server import Dynalite
from tests.processes import is_running
from vending.table import PATIENCE_SECONDS, Table, TableUnavailable, dynamodb_client

THREADS = 16
TTL = 2_000_000_000
T = TypeVar("T")


@pytest.fixture
def table(dynalite: Dynalite) -> Table:
    return dynalite.table()


def at_once(operation: Callable[[], T], times: int) -> list[T]:
    """What that many calls answer, made by 16 threads that start together."""
    gate = threading.Barrier(min(THREADS, times))

    def run(number: int) -> T:
        if number < gate.parties:
            gate.wait(30)
        return operation()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(times)))


# Items


def test_an_item_is_read_as_it_was_put(table: Table) -> None:
    item: dict[str, str | int] = {
        "pk": "p",
        "sk": "s",
        "token": "t" * 2000,
        "empty": "",
        "expires": 1_614_350_382,
        "zero": 0,
        "ttl": TTL,
    }
    table.put(item)
    assert table.get("p", "s") == item
    assert table.get("p", "other") is None
    assert table.get("other", "s") is None


def test_a_put_replaces_the_whole_item(table: Table) -> None:
    table.put({"pk": "p", "sk": "s", "old": 1})
    table.put({"pk": "p", "sk": "s", "new": 2})
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "new": 2}


def test_a_new_item_is_written_once_and_never_over_another(table: Table) -> None:
    assert table.put_new({"pk": "p", "sk": "s", "n": 1})
    assert not table.put_new({"pk": "p", "sk": "s", "n": 2})
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "n": 1}


def test_of_many_who_write_a_new_item_exactly_one_does(table: Table) -> None:
    for number in range(20):
        written = at_once(partial(table.put_new, {"pk": "p", "sk": f"{number}"}), THREADS)
        assert written.count(True) == 1


def test_a_deleted_item_is_gone_and_may_be_deleted_again(table: Table) -> None:
    table.put({"pk": "p", "sk": "s"})
    table.delete("p", "s")
    table.delete("p", "s")
    assert table.get("p", "s") is None


# Query


def put_many(table: Table, count: int, **more: str | int) -> list[str]:
    keys = [f"{number:04}" for number in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda sk: table.put({"pk": "p", "sk": sk, **more}), keys))
    return keys


def test_a_query_answers_one_partition_in_order(table: Table) -> None:
    keys = put_many(table, 20)
    table.put({"pk": "p2", "sk": "0000"})
    assert [item["sk"] for item in table.query("p")] == keys
    assert table.query("nothing") == []


def test_a_query_begins_where_it_is_told_including_that_key(table: Table) -> None:
    put_many(table, 10)
    assert [item["sk"] for item in table.query("p", from_sk="0007")] == ["0007", "0008", "0009"]
    assert [item["sk"] for item in table.query("p", from_sk="0006x")] == ["0007", "0008", "0009"]
    assert table.query("p", from_sk="0010") == []


@pytest.mark.parametrize(("limit", "found"), [(0, 0), (1, 1), (9, 9), (10, 10), (11, 10)])
def test_a_query_stops_at_its_limit(table: Table, limit: int, found: int) -> None:
    put_many(table, 10)
    assert len(table.query("p", limit=limit)) == found


def test_a_query_reads_on_over_the_pages_of_one_megabyte(table: Table) -> None:
    keys = put_many(table, 30, filler="x" * 100_000)
    assert [item["sk"] for item in table.query("p")] == keys
    assert [item["sk"] for item in table.query("p", limit=25)] == keys[:25]
    assert [item["sk"] for item in table.query("p", from_sk="0005", attributes=["sk"])] == keys[5:]


def test_a_query_of_some_attributes_answers_no_others(table: Table) -> None:
    table.put({"pk": "p", "sk": "s", "token": "secret", "ttl": TTL, "name": "a reserved word, like ttl"})
    assert table.query("p", attributes=["sk", "ttl", "name", "absent"]) == [
        {"sk": "s", "ttl": TTL, "name": "a reserved word, like ttl"}
    ]


# Take


def test_what_is_taken_is_gone_and_answered_whole(table: Table) -> None:
    item: dict[str, str | int] = {"pk": "p", "sk": "s", "token": "t", "expires": 7}
    table.put(item)
    assert table.take("p", "s") == item
    assert table.get("p", "s") is None
    assert table.take("p", "s") is None


def test_of_many_who_take_exactly_one_gets_the_item(table: Table) -> None:
    for number in range(20):
        table.put({"pk": "p", "sk": f"{number}"})
        won = [item for item in at_once(partial(table.take, "p", f"{number}"), THREADS) if item]
        assert won == [{"pk": "p", "sk": f"{number}"}]


# Counters


def test_a_counter_begins_at_nothing_and_adds_up(table: Table) -> None:
    assert table.add("c", "s", 5, ttl=TTL) == 5
    assert table.add("c", "s", 2, ttl=TTL + 1) == 7
    assert table.get("c", "s") == {"pk": "c", "sk": "s", "n": 7, "ttl": TTL + 1}


def test_a_counter_with_a_bound_is_filled_to_it_and_not_over(table: Table) -> None:
    assert table.add("c", "s", 7, ttl=TTL, at_most=10) == 7
    assert table.add("c", "s", 4, ttl=TTL, at_most=10) is None
    assert table.add("c", "s", 3, ttl=TTL, at_most=10) == 10
    assert table.add("c", "s", 1, ttl=TTL, at_most=10) is None
    assert table.get("c", "s") == {"pk": "c", "sk": "s", "n": 10, "ttl": TTL}


def test_a_first_addition_over_the_bound_makes_no_counter(table: Table) -> None:
    assert table.add("c", "s", 11, ttl=TTL, at_most=10) is None
    assert table.add("c", "s", 1, ttl=TTL, at_most=0) is None
    assert table.get("c", "s") is None


def test_no_addition_is_lost_among_many(table: Table) -> None:
    answers = at_once(lambda: table.add("c", "s", 1, ttl=TTL), 200)
    assert sorted(answer or 0 for answer in answers) == list(range(1, 201))


def test_a_bound_holds_among_many(table: Table) -> None:
    answers = at_once(lambda: table.add("c", "s", 3, ttl=TTL, at_most=100), 200)
    assert sum(answer is not None for answer in answers) == 33
    assert (table.get("c", "s") or {})["n"] == 99


# Leases


def lease(table: Table, now_ms: int, until_ms: int) -> int | None:
    return table.lease("lease", "lease", now_ms=now_ms, until_ms=until_ms, ttl=TTL)


def hold(table: Table, fence: int, now_ms: int, until_ms: int) -> bool:
    return table.hold("lease", "lease", fence=fence, now_ms=now_ms, until_ms=until_ms)


def test_a_lease_is_one_holders_until_it_runs_out_and_each_holder_has_a_higher_number(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert lease(table, 1000, 9000) is None
    assert lease(table, 1999, 9000) is None
    assert lease(table, 2000, 3000) == 2
    assert (table.get("lease", "lease") or {})["until_ms"] == 3000


def test_of_many_who_want_a_lease_exactly_one_gets_it(table: Table) -> None:
    for number in range(1, 21):
        fences = at_once(partial(lease, table, number * 1000, number * 1000 + 1000), THREADS)
        assert [fence for fence in fences if fence is not None] == [number]


def test_a_holder_prolongs_its_lease_and_nobody_elses(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert hold(table, 1, 1500, 2500)
    assert lease(table, 2400, 9000) is None
    assert not hold(table, 2, 2400, 9000)
    assert lease(table, 2500, 3500) == 2
    assert not hold(table, 1, 2600, 9000), "it ran out and is another's"


def test_a_lease_that_ran_out_is_not_prolonged_even_if_nobody_else_wants_it(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert not hold(table, 1, 2000, 3000)


def test_a_lease_that_was_given_back_is_free_at_once_and_gone_for_who_held_it(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert hold(table, 1, 1100, 0)
    assert not hold(table, 1, 1100, 2000)
    assert lease(table, 1100, 2000) == 2


def test_a_lease_that_never_was_cannot_be_held(table: Table) -> None:
    assert not hold(table, 0, 1000, 2000)
    assert table.get("lease", "lease") is None


# Faults: a server that listens like DynamoDB, and does one wrong thing to each connection


Fault = Callable[[socket.socket], None]


@contextmanager
def broken(fault: Fault) -> Iterator[str]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            fault(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def request_on(connection: socket.socket) -> bytes:
    """The whole request: a server that closes while some is unread would cut its own answer off."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    head = request.partition(b"\r\n\r\n")[0]
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(request) < len(head) + 4 + length:
        request += connection.recv(65536)
    return request


def stalled(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass  # until the client has had enough


def cut(connection: socket.socket) -> None:
    request_on(connection)


def answered(body: bytes, status: str = "200 OK", length: int | None = None) -> Fault:
    def answer(connection: socket.socket) -> None:
        request_on(connection)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    return answer


def refused(code: str, status: str = "400 Bad Request") -> Fault:
    return answered(b'{"__type": "com.amazonaws.dynamodb.v20120810#%b", "message": "secret"}' % code.encode(), status)


FAULTS: dict[str, Fault] = {
    "stalled": stalled,
    "cut": cut,
    "throttled": refused("ProvisionedThroughputExceededException"),
    "throttled by account": refused("RequestLimitExceeded"),
    "too many at once": refused("ThrottlingException"),
    "no such table": refused("ResourceNotFoundException"),
    "forbidden": refused("AccessDeniedException"),
    "key disabled": refused("KMSAccessDeniedException"),
    "not valid": refused("ValidationException"),
    "their fault": refused("InternalServerError", "500 Internal Server Error"),
    "unavailable": answered(b"<html>down</html>", "503 Service Unavailable"),
    "gateway": answered(b"", "502 Bad Gateway"),
    "redirected": answered(b"", "301 Moved Permanently"),
    "a page": answered(b"<html>a captive portal</html>"),
    "nothing": answered(b""),
    # botocore takes these for answers with nothing in them: no item, no brake, written.
    "cut short": answered(b'{"Item"', length=500),
    "another shape": answered(b"[1, 2]"),
    "no number": answered(
        b'{"Attributes": {"fence": {"N": "x"}, "n": {"N": "x"}}, "Item": {"n": {"N": "x"}}, "Items": [{"n": {"N": "x"}}]}'
    ),
    "no http": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n"),
}

OPERATIONS: dict[str, Callable[[Table], object]] = {
    "get": lambda table: table.get("p", "s"),
    "query": lambda table: table.query("p"),
    "put": lambda table: table.put({"pk": "p", "sk": "s"}),
    "take": lambda table: table.take("p", "s"),
    "add": lambda table: table.add("p", "s", 1, ttl=TTL),
    "add within a bound": lambda table: table.add("p", "s", 1, ttl=TTL, at_most=5),
    "lease": lambda table: lease(table, 0, 1),
    "hold": lambda table: hold(table, 1, 0, 1),
    "delete": lambda table: table.delete("p", "s"),
}


@pytest.fixture
def function_client(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Table]:
    """The functions' own client with its 0.3 s, for a server at that address."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")

    def make(url: str) -> Table:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        return Table(dynamodb_client(Aws()), "vending")

    return make


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_with_the_table_is_one_error_that_tells_nothing(
    function_client: Callable[[str], Table], fault: str, operation: str
) -> None:
    with broken(FAULTS[fault]) as url:
        table = function_client(url)
        with pytest.raises(TableUnavailable) as caught:
            OPERATIONS[operation](table)
    assert "secret" not in str(caught.value)
    assert url.split(":")[-1] not in str(caught.value)


def test_a_table_that_does_not_listen_is_unavailable(function_client: Callable[[str], Table]) -> None:
    with broken(cut) as url:
        pass
    with pytest.raises(TableUnavailable, match="EndpointConnectionError"):
        function_client(url).take("p", "s")


def test_a_table_that_stalls_is_given_up_after_its_patience_and_asked_once(
    function_client: Callable[[str], Table],
) -> None:
    connections: list[socket.socket] = []

    def stall(connection: socket.socket) -> None:
        connections.append(connection)
        stalled(connection)

    with broken(stall) as url:
        table = function_client(url)
        started = time.monotonic()
        with pytest.raises(TableUnavailable, match="ReadTimeoutError"):
            table.take("p", "s")
        took_seconds = time.monotonic() - started
    assert PATIENCE_SECONDS <= took_seconds < 30  # boto3 by itself would wait for 60
    assert len(connections) == 1


def test_a_lost_answer_to_a_take_wastes_the_token_and_gives_it_to_nobody(dynalite: Dynalite) -> None:
    name = dynalite.new_table()
    table = dynalite.table(name)
    table.put({"pk": "p", "sk": "s", "token": "t"})

    def lose(connection: socket.socket) -> None:
        """Hand the request on, and cut the caller off when the answer begins."""
        host, port = dynalite.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 30) as onward:
            onward.sendall(request_on(connection))
            onward.recv(1)

    with broken(lose) as url, pytest.raises(TableUnavailable):
        Table(dynalite_server.client(url), name).take("p", "s")
    assert table.get("p", "s") is None
    assert table.take("p", "s") is None


def test_the_server_is_gone_after_the_tests() -> None:
    with dynalite_server.dynalite() as server:
        assert is_running(server.pid)
    assert not is_running(server.pid)
