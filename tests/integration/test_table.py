"""The table's operations on boto3 and moto: what is asked of DynamoDB, to the condition, and what is made of its answers.

That they hold among many at once is for tests/e2e/test_table.py, on a DynamoDB that is atomic.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from imburse_auth.aws import Aws
from tests.machine import ENVIRON
from vending.table import Item, Table, TableUnavailable, dynamodb_client

TTL = 2_000_000_000
LOST = ClientError({"Error": {"Code": "ConditionalCheckFailedException", "Message": "secret"}}, "Any")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """The functions' own client, before moto."""
    with mock.patch.dict(os.environ, ENVIRON), mock_aws():
        yield dynamodb_client(Aws())


@pytest.fixture
def table(client: Any) -> Table:
    """A new one for each test."""
    name = f"vending-{next(_numbers)}"
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return Table(client, name)


def lease(table: Table, now_ms: int, until_ms: int) -> int | None:
    return table.lease("l", "s", now_ms=now_ms, until_ms=until_ms, ttl=TTL)


def hold(table: Table, fence: int, now_ms: int, until_ms: int) -> bool:
    return table.hold("l", "s", fence=fence, now_ms=now_ms, until_ms=until_ms)


OPERATIONS: dict[str, tuple[str, Callable[[Table], object]]] = {
    "get": ("get_item", lambda table: table.get("p", "s")),
    "query": ("query", lambda table: table.query("p")),
    "put": ("put_item", lambda table: table.put({"pk": "p", "sk": "s"})),
    "put_new": ("put_item", lambda table: table.put_new({"pk": "p", "sk": "s"})),
    "take": ("delete_item", lambda table: table.take("p", "s")),
    "add": ("update_item", lambda table: table.add("p", "s", 1, ttl=TTL)),
    "lease": ("update_item", lambda table: lease(table, 0, 1)),
    "hold": ("update_item", lambda table: hold(table, 1, 0, 1)),
    "delete": ("delete_item", lambda table: table.delete("p", "s")),
}


# Items


def test_an_item_is_read_as_it_was_put(table: Table) -> None:
    item: Item = {"pk": "p", "sk": "s", "token": "t", "empty": "", "digits": "7", "n": 7, "zero": 0, "below": -1}
    table.put(item)
    assert table.get("p", "s") == item
    assert (table.get("p", "other"), table.get("other", "s")) == (None, None)


def test_a_put_replaces_the_whole_item(table: Table) -> None:
    table.put({"pk": "p", "sk": "s", "old": 1})
    table.put({"pk": "p", "sk": "s", "new": 2})
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "new": 2}


def test_a_new_item_is_never_written_over_another(table: Table) -> None:
    assert table.put_new({"pk": "p", "sk": "s", "n": 1}) is True
    assert table.put_new({"pk": "p", "sk": "s", "n": 2}) is False
    assert table.put_new({"pk": "p", "sk": "other"}) is True
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "n": 1}


def test_what_is_taken_is_gone_and_answered_whole_to_one_only(table: Table) -> None:
    for sk in ("s", "other"):
        table.put({"pk": "p", "sk": sk, "token": f"t-{sk}"})
    assert table.take("p", "s") == {"pk": "p", "sk": "s", "token": "t-s"}
    assert table.take("p", "s") is None
    assert table.query("p") == [{"pk": "p", "sk": "other", "token": "t-other"}]


def test_a_deleted_item_is_gone_and_may_be_deleted_again(table: Table) -> None:
    for sk in ("s", "other"):
        table.put({"pk": "p", "sk": sk})
    table.delete("p", "s")
    table.delete("p", "s")
    assert table.query("p") == [{"pk": "p", "sk": "other"}]


@pytest.mark.parametrize("answer", [{}, {"Attributes": {}}])
def test_a_taken_item_without_its_attributes_was_not_won(answer: dict[str, Any]) -> None:
    fake = mock.Mock()
    fake.delete_item.return_value = answer
    assert Table(fake, "vending").take("p", "s") is None


def test_a_take_is_one_delete_of_what_is_there_that_answers_what_it_was() -> None:
    fake = mock.Mock()
    fake.delete_item.return_value = {}
    Table(fake, "vending").take("p", "s")
    assert fake.mock_calls[:1] == [
        mock.call.delete_item(
            TableName="vending",
            Key={"pk": {"S": "p"}, "sk": {"S": "s"}},
            ConditionExpression="attribute_exists(pk)",
            ReturnValues="ALL_OLD",
        )
    ]


# Query


def test_a_query_answers_one_partition_in_order_from_a_key_on(table: Table) -> None:
    for pk, sk in (("p", "2"), ("p", "1"), ("p", "3"), ("p2", "0")):
        table.put({"pk": pk, "sk": sk})
    assert [item["sk"] for item in table.query("p")] == ["1", "2", "3"]
    assert [item["sk"] for item in table.query("p", from_sk="2")] == ["2", "3"]
    assert [item["sk"] for item in table.query("p", limit=2)] == ["1", "2"]
    assert table.query("nothing") == []


def test_a_query_of_some_attributes_answers_no_others(table: Table) -> None:
    table.put({"pk": "p", "sk": "s", "token": "secret", "ttl": TTL, "name": "a reserved word, like ttl"})
    wanted = ["sk", "ttl", "name", "absent"]
    assert table.query("p", attributes=wanted) == [{"sk": "s", "ttl": TTL, "name": "a reserved word, like ttl"}]


def test_a_query_reads_on_over_pages(table: Table) -> None:
    for number in range(5):
        table.put({"pk": "p", "sk": str(number), "filler": "x" * 350_000})
    assert [item["sk"] for item in table.query("p")] == ["0", "1", "2", "3", "4"]


def pages(*counts: int) -> mock.Mock:
    """A client whose queries answer so many items each; after the last there is no more."""
    fake = mock.Mock()
    answers: list[dict[str, Any]] = [
        {"Items": [{"n": {"N": "1"}}] * count, "LastEvaluatedKey": "on"} for count in counts
    ]
    del answers[-1]["LastEvaluatedKey"]
    fake.query.side_effect = answers
    return fake


def test_a_query_with_a_limit_asks_for_what_it_lacks_and_from_where_it_stopped() -> None:
    fake = pages(2, 0, 3, 9)
    assert Table(fake, "vending").query("p", limit=5) == [{"n": 1}] * 5
    calls = [call.kwargs for call in fake.query.call_args_list]
    assert [(call["Limit"], call.get("ExclusiveStartKey")) for call in calls] == [(5, None), (3, "on"), (3, "on")]


def test_a_query_that_has_reached_a_large_limit_asks_no_more() -> None:
    fake = pages(300, 9)
    assert len(Table(fake, "vending").query("p", limit=int("300"))) == 300
    assert fake.query.call_count == 1


def test_a_query_without_a_limit_asks_for_none_until_there_is_no_more() -> None:
    fake = pages(2, 0, 1)
    assert Table(fake, "vending").query("p") == [{"n": 1}] * 3
    assert ["Limit" in call.kwargs for call in fake.query.call_args_list] == [False] * 3


def test_a_query_for_nothing_asks_nobody() -> None:
    fake = mock.Mock()
    assert Table(fake, "vending").query("p", limit=0) == []
    assert fake.mock_calls == []


def test_what_is_read_is_read_consistently() -> None:
    fake = pages(0)
    fake.get_item.return_value = {}
    Table(fake, "vending").get("p", "s")
    Table(fake, "vending").query("p")
    assert [call.kwargs["ConsistentRead"] for call in (fake.get_item.call_args, fake.query.call_args)] == [True, True]


# Counters


def test_a_counter_begins_at_nothing_adds_up_and_says_how_long_it_is_kept(table: Table) -> None:
    assert table.add("c", "s", 5, ttl=TTL) == 5
    assert table.add("c", "s", 2, ttl=TTL + 1) == 7
    assert table.get("c", "s") == {"pk": "c", "sk": "s", "n": 7, "ttl": TTL + 1}


def test_a_counter_with_a_bound_is_filled_to_it_and_not_over(table: Table) -> None:
    for amount, total in ((7, 7), (4, None), (3, 10), (1, None)):
        assert table.add("c", "s", amount, ttl=TTL, at_most=10) == total
    assert table.get("c", "s") == {"pk": "c", "sk": "s", "n": 10, "ttl": TTL}
    assert table.add("c", "full", 10, ttl=TTL, at_most=10) == 10


def test_what_is_over_the_bound_alone_is_added_to_no_counter_and_asks_nobody() -> None:
    fake = mock.Mock()
    assert Table(fake, "vending").add("c", "s", 11, ttl=TTL, at_most=10) is None
    assert Table(fake, "vending").add("c", "s", 1, ttl=TTL, at_most=0) is None
    assert fake.mock_calls == []


# Leases


def test_a_lease_is_one_holders_until_it_runs_out_and_each_holder_has_a_higher_number(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert (lease(table, 1000, 9000), lease(table, 1999, 9000)) == (None, None)
    assert lease(table, 2000, 3000) == 2
    assert table.get("l", "s") == {"pk": "l", "sk": "s", "fence": 2, "until_ms": 3000, "ttl": TTL}


def test_a_holder_prolongs_its_lease_while_it_holds_it_and_nobody_elses(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert hold(table, 1, 1999, 2500) is True
    assert hold(table, 1, 2500, 9000) is False, "it ran out"
    assert lease(table, 2499, 9000) is None
    for another in (0, 2):
        assert hold(table, another, 2400, 9000) is False
    assert table.get("l", "s") == {"pk": "l", "sk": "s", "fence": 1, "until_ms": 2500, "ttl": TTL}


def test_a_lease_that_was_given_back_is_free_at_once_and_gone_for_who_held_it(table: Table) -> None:
    assert lease(table, 1000, 2000) == 1
    assert hold(table, 1, 1100, 0)
    assert not hold(table, 1, 1100, 2000)
    assert lease(table, 1100, 2000) == 2


def test_a_lease_that_never_was_cannot_be_held(table: Table) -> None:
    assert not hold(table, 0, 1000, 2000)
    assert table.get("l", "s") is None


def test_every_argument_may_be_given_by_its_name(table: Table) -> None:
    assert table.add(pk="p", sk="s", amount=1, ttl=TTL, at_most=1) == 1
    assert table.query(pk="p", from_sk="s", limit=1, attributes=["n"]) == [{"n": 1}]
    assert table.lease(pk="l", sk="s", now_ms=0, until_ms=9, ttl=TTL) == 1
    assert table.hold(pk="l", sk="s", fence=1, now_ms=1, until_ms=2)
    config: Any = dynamodb_client(aws=Aws(), patience_seconds=1.0, tries=1).meta.config
    assert config.read_timeout == 1.0


# What goes wrong


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (
            ClientError({"Error": {"Code": "AccessDeniedException", "Message": "secret"}}, "Any"),
            "AccessDeniedException",
        ),
        (ClientError({"Error": {"Message": "secret"}}, "Any"), ""),
        (ClientError({}, "Any"), ""),
        (EndpointConnectionError(endpoint_url="secret"), "EndpointConnectionError"),
    ],
)
def test_whatever_is_wrong_is_one_error_that_says_its_code_and_hides_the_rest(
    operation: str, failure: Exception, says: str
) -> None:
    called, run = OPERATIONS[operation]
    fake = mock.Mock(**{f"{called}.side_effect": failure})
    with pytest.raises(TableUnavailable) as caught:
        run(Table(fake, "vending"))
    assert str(caught.value) == says
    assert caught.value.__suppress_context__
    assert len(fake.mock_calls) == 1


@pytest.mark.parametrize("operation", ["get", "query", "put", "delete"])
def test_an_operation_without_a_condition_cannot_lose_by_one(operation: str) -> None:
    called, run = OPERATIONS[operation]
    with pytest.raises(TableUnavailable, match="ConditionalCheckFailedException"):
        run(Table(mock.Mock(**{f"{called}.side_effect": LOST}), "vending"))


def test_what_is_not_the_tables_fault_is_not_called_so() -> None:
    with pytest.raises(ZeroDivisionError):
        Table(mock.Mock(**{"get_item.side_effect": ZeroDivisionError}), "vending").get("p", "s")


@contextmanager
def answering(client: Any, status: int, body: bytes, headers: dict[str, str]) -> Iterator[None]:
    """That answer instead of moto's, while the block lasts."""
    case_insensitive: Any = HeadersDict(headers)
    answer = AWSResponse("", status, case_insensitive, mock.Mock(**{"stream.return_value": [body]}))

    def answered(**_: Any) -> AWSResponse:
        return answer

    client.meta.events.register_first("before-send.dynamodb", answered)
    try:
        yield
    finally:
        client.meta.events.unregister("before-send.dynamodb", answered)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("status", "body", "checksum", "says"),
    [
        (200, b"{}", None, "NotAWholeAnswer"),
        (200, b"", "1", "NotAWholeAnswer"),
        (200, b'{"Item"', "2745614147", "NotAWholeAnswer"),
        (400, b'{"__type": "a#ThrottlingException", "message": "secret"}', None, "ThrottlingException"),
        (301, b"", None, "301"),
        (503, b"<html>", None, "503"),
    ],
)
def test_an_answer_that_is_not_whole_is_no_answer(
    client: Any, table: Table, operation: str, status: int, body: bytes, checksum: str | None, says: str
) -> None:
    headers = {} if checksum is None else {"X-Amz-Crc32": checksum}
    with answering(client, status, body, headers), pytest.raises(TableUnavailable) as caught:
        OPERATIONS[operation][1](table)
    assert str(caught.value) == says


def test_a_whole_answer_is_one_whose_checksum_is_that_of_its_body(client: Any, table: Table) -> None:
    with answering(client, 200, b"{}", {"x-amz-crc32": "2745614147"}):
        assert table.get("p", "s") is None


def test_the_functions_own_client_tries_once_and_is_not_patient(client: Any) -> None:
    config: Any = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (0.3, 0.3, 32)
    assert config.retries["total_max_attempts"] == 1


def test_a_client_may_be_given_more_patience_and_tries(client: Any) -> None:
    config: Any = dynamodb_client(Aws(), patience_seconds=5.0, tries=3).meta.config
    assert (config.connect_timeout, config.read_timeout) == (5.0, 5.0)
    assert config.retries["total_max_attempts"] == 3
