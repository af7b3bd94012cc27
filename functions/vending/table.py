"""The one DynamoDB table, as the few operations that everything on it is made of. Each is a single atomic call.

An item is a dict of plain Python values (text, whole numbers) with its key in `pk` and `sk`, and `ttl` in whole seconds since
the epoch, after which DynamoDB may drop it; nobody relies on when, so readers look at the times that they care for themselves.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from imburse_auth.aws import Aws

Item = dict[str, str | int]

PATIENCE_SECONDS = 0.3  # a pool that takes longer is no faster than Imburse
_LOST = "ConditionalCheckFailedException"


class TableUnavailable(Exception):
    """DynamoDB is down, slow, throttling or forbidden. The message is the error's code, nothing of the item."""


def dynamodb_client(aws: Aws, *, patience_seconds: float = PATIENCE_SECONDS, tries: int = 1) -> DynamoDBClient:
    """A DynamoDB client that gives up after 0.3 s: one try, since a second would cost the caller more than an exchange.

    Where no caller waits it may have more patience, for each of its tries. An operation that is tried twice may happen twice.
    """
    client: DynamoDBClient = aws.client(
        "dynamodb", connect_seconds=patience_seconds, read_seconds=patience_seconds, tries=tries, connections=32
    )
    client.meta.events.register("before-parse.dynamodb", _only_whole_answers)
    return client


def _only_whole_answers(response_dict: Mapping[str, Any], **_: object) -> None:
    # botocore takes an answer that was cut short, or a proxy's page, for an empty one: no item, no brake, written.
    checksum = response_dict["headers"].get("x-amz-crc32")
    if response_dict["status_code"] == 200 and checksum != str(zlib.crc32(response_dict["body"])):
        raise TableUnavailable("NotAWholeAnswer")


class Table:
    """Every operation raises TableUnavailable, and an operation that raised may have happened."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client = client
        self._name = name

    def get(self, pk: str, sk: str) -> Item | None:
        """The item, read consistently, or None."""
        answer = _call(lambda: self._client.get_item(TableName=self._name, Key=_key(pk, sk), ConsistentRead=True))
        return _plain(answer["Item"]) if "Item" in answer else None

    def query(
        self, pk: str, *, from_sk: str = "", limit: int | None = None, attributes: Sequence[str] | None = None
    ) -> list[Item]:
        """Items of a partition in ascending order of `sk` from `from_sk` on, read consistently; all pages up to `limit`."""
        arguments: dict[str, Any] = {
            "TableName": self._name,
            "KeyConditionExpression": "pk = :pk AND sk >= :sk" if from_sk else "pk = :pk",
            "ExpressionAttributeValues": _wired({":pk": pk, ":sk": from_sk} if from_sk else {":pk": pk}),
            "ConsistentRead": True,
        }
        if attributes is not None:
            arguments["ProjectionExpression"] = ", ".join(f"#{name}" for name in attributes)
            arguments["ExpressionAttributeNames"] = {f"#{name}": name for name in attributes}
        items: list[Item] = []
        while limit is None or len(items) < limit:
            if limit is not None:
                arguments["Limit"] = limit - len(items)
            answer = _call(lambda: self._client.query(**arguments))
            items += [_plain(item) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                break
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return items

    def put(self, item: Item) -> None:
        """Write the item, whatever was there."""
        _call(lambda: self._client.put_item(TableName=self._name, Item=_wired(item)))

    def put_new(self, item: Item) -> bool:
        """Write the item if there is none with its key. Answers whether it was written."""
        answer = _call(
            lambda: self._client.put_item(
                TableName=self._name, Item=_wired(item), ConditionExpression="attribute_not_exists(pk)"
            ),
            lost=None,
        )
        return answer is not None

    def take(self, pk: str, sk: str) -> Item | None:
        """Delete the item and answer what it was: for exactly one of all who try. None for everybody else."""
        answer = _call(
            lambda: self._client.delete_item(
                TableName=self._name,
                Key=_key(pk, sk),
                ConditionExpression="attribute_exists(pk)",
                ReturnValues="ALL_OLD",
            ),
            lost={},
        )
        # Without attributes in the answer nothing was won, whatever else the answer says.
        return _plain(answer["Attributes"]) if answer.get("Attributes") else None

    def add(self, pk: str, sk: str, amount: int, *, ttl: int, at_most: int | None = None) -> int | None:
        """Add to the counter `n` and answer its new value; None, and nothing added, if that would be over `at_most`."""
        if at_most is not None and amount > at_most:
            return None
        arguments: dict[str, Any] = {
            "TableName": self._name,
            "Key": _key(pk, sk),
            "UpdateExpression": "ADD n :n SET #ttl = :ttl",
            "ExpressionAttributeNames": {"#ttl": "ttl"},
            "ExpressionAttributeValues": _wired({":n": amount, ":ttl": ttl}),
            "ReturnValues": "UPDATED_NEW",
        }
        if at_most is not None:
            arguments["ConditionExpression"] = "attribute_not_exists(n) OR n <= :room"
            arguments["ExpressionAttributeValues"] |= _wired({":room": at_most - amount})
        answer = _call(lambda: self._client.update_item(**arguments), lost=None)
        return None if answer is None else int(_plain(answer["Attributes"])["n"])

    def lease(self, pk: str, sk: str, *, now_ms: int, until_ms: int, ttl: int) -> int | None:
        """Take a lease that nobody holds at `now_ms`, until `until_ms`.

        Answers its fencing number, one more than the last holder's, or None while somebody holds it.
        """
        answer = _call(
            lambda: self._client.update_item(
                TableName=self._name,
                Key=_key(pk, sk),
                UpdateExpression="ADD fence :one SET until_ms = :until, #ttl = :ttl",
                ConditionExpression="attribute_not_exists(until_ms) OR until_ms <= :now",
                ExpressionAttributeNames={"#ttl": "ttl"},
                ExpressionAttributeValues=_wired({":one": 1, ":until": until_ms, ":now": now_ms, ":ttl": ttl}),
                ReturnValues="UPDATED_NEW",
            ),
            lost=None,
        )
        return None if answer is None else int(_plain(answer["Attributes"])["fence"])

    def hold(self, pk: str, sk: str, *, fence: int, now_ms: int, until_ms: int) -> bool:
        """Prolong (or with `until_ms` in the past, give back) a lease. False if it ran out or is another's by now."""
        answer = _call(
            lambda: self._client.update_item(
                TableName=self._name,
                Key=_key(pk, sk),
                UpdateExpression="SET until_ms = :until",
                ConditionExpression="fence = :fence AND until_ms > :now",
                ExpressionAttributeValues=_wired({":until": until_ms, ":fence": fence, ":now": now_ms}),
            ),
            lost=None,
        )
        return answer is not None

    def delete(self, pk: str, sk: str) -> None:
        """Delete the item, if it is there."""
        _call(lambda: self._client.delete_item(TableName=self._name, Key=_key(pk, sk)))


def _call(operation: Callable[[], Any], lost: object = ...) -> Any:  # noqa: ANN401 - boto3's own answer, of many shapes
    try:
        return operation()
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "")
        if code == _LOST and lost is not ...:
            return lost
        raise TableUnavailable(code) from None
    except BotoCoreError as exc:
        raise TableUnavailable(type(exc).__name__) from None


def _key(pk: str, sk: str) -> dict[str, Any]:
    return _wired({"pk": pk, "sk": sk})


def _wired(item: Mapping[str, str | int]) -> dict[str, Any]:
    return {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in item.items()}


def _plain(item: Mapping[str, Any]) -> Item:
    return {name: int(value["N"]) if "N" in value else str(value["S"]) for name, value in item.items()}
