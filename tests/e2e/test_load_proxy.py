"""What stands between the functions and AWS in the load run: it fails as it is told, and else is not noticed."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config

from local.serving import in_background
from tests.dynalite_server import Dynalite
from tests.load.aws_proxy import AwsProxy, How
from vending.table import Table, TableUnavailable

PATIENCE_SECONDS = 1.5  # half of what a call is stalled for


@pytest.fixture
def proxied(dynalite: Dynalite) -> Iterator[tuple[AwsProxy, Table]]:
    proxy = AwsProxy()
    proxy.targets = {"DynamoDB": dynalite.url}
    config = Config(read_timeout=PATIENCE_SECONDS, retries={"total_max_attempts": 1, "mode": "standard"}, proxies={})
    client = boto3.Session("testing", "testing", region_name="eu-west-1").client(
        "dynamodb", endpoint_url=proxy.url, config=config
    )
    with in_background(proxy.serving()):
        yield proxy, Table(client, dynalite.new_table())
    client.close()


@pytest.mark.parametrize(
    ("how", "reasons", "written"),
    [
        ("errors", {"InternalServerError", "ProvisionedThroughputExceededException"}, ["0"]),
        ("stall", {"ReadTimeoutError"}, ["0", "1"]),
        ("hang up", {"ConnectionClosedError"}, ["0", "1"]),
    ],
)
def test_the_proxy_fails_a_service_as_told_after_every_other_call_had_its_effect(
    proxied: tuple[AwsProxy, Table], how: How, reasons: set[str], written: list[str]
) -> None:
    proxy, table = proxied
    table.put({"pk": "item", "sk": "0"})
    proxy.faults["DynamoDB"] = how
    failed = set()
    for number in ("1", "2"):
        with pytest.raises(TableUnavailable) as failure:
            table.put({"pk": "item", "sk": number})
        failed.add(str(failure.value))
    assert (failed, proxy.spoilt) == (reasons, 2)
    proxy.faults.clear()
    assert [item["sk"] for item in table.query("item")] == written


def test_a_fault_of_one_service_is_not_anothers(proxied: tuple[AwsProxy, Table]) -> None:
    proxy, table = proxied
    proxy.faults["secretsmanager"] = "errors"
    table.put({"pk": "item", "sk": "0"})
    assert (len(table.query("item")), proxy.spoilt) == (1, 0)
