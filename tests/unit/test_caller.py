from typing import Any

import pytest

from tests.machine import ACCOUNT
from vending.access.caller import from_api, from_invoke
from vending.errors import NotAuthorized


def api(**identity: Any) -> dict[str, Any]:
    return {"requestContext": {"identity": identity}}


@pytest.mark.parametrize(
    ("arn", "caller"),
    [
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/i-0123", f"arn:aws:iam::{ACCOUNT}:role/orders"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/me@example.com", f"arn:aws:iam::{ACCOUNT}:role/orders"),
        (f"arn:aws:iam::{ACCOUNT}:role/orders", f"arn:aws:iam::{ACCOUNT}:role/orders"),
        (f"arn:aws:iam::{ACCOUNT}:role/service/eu/orders", f"arn:aws:iam::{ACCOUNT}:role/orders"),
        (f"arn:aws-us-gov:sts::{ACCOUNT}:assumed-role/orders/s", f"arn:aws-us-gov:iam::{ACCOUNT}:role/orders"),
        (f"arn:aws:iam::{ACCOUNT}:user/people/ann", f"arn:aws:iam::{ACCOUNT}:user/people/ann"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/ann", f"arn:aws:sts::{ACCOUNT}:federated-user/ann"),
        (f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:root"),
    ],
)
def test_a_principal_is_named_as_the_policy_names_it(arn: str, caller: str) -> None:
    found = from_api(api(userArn=arn, sourceIp="10.0.0.7", vpceId="vpce-1"))
    assert (found.id, found.account, found.via) == (caller, ACCOUNT, "api")
    assert (found.source_ip, found.vpce) == ("10.0.0.7", "vpce-1")


@pytest.mark.parametrize(
    "arn",
    [
        "", "orders", "*", f"arn:aws:iam::{ACCOUNT}:role/orders\n", f"arn:aws:iam::{ACCOUNT}:group/x", f"arn:aws:s3::{ACCOUNT}:role/x",
        "arn:aws:iam::12345:role/orders", f"arn:aws:sts::{ACCOUNT}:assumed-role/orders", f"arn:aws:sts::{ACCOUNT}:assumed-role//s",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/", f"arn:aws:sts::{ACCOUNT}:assumed-role/a/orders/s", f"arn:aws:iam::{ACCOUNT}:role/ordеrs",
    ],
)  # fmt: skip
def test_what_names_no_principal_is_refused(arn: str) -> None:
    with pytest.raises(NotAuthorized):
        from_api(api(userArn=arn))


@pytest.mark.parametrize("event", [{}, {"requestContext": None}, {"requestContext": {}}, api(), api(userArn=None)])
def test_an_event_without_identity_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(NotAuthorized):
        from_api(event)


@pytest.mark.parametrize("address", ["test-invoke-source-ip", "", None, "10.0.0.7, 10.0.0.8", 7])
def test_an_address_that_is_none_is_left_out(address: Any) -> None:
    assert from_api(api(userArn=f"arn:aws:iam::{ACCOUNT}:role/orders", sourceIp=address)).source_ip is None


def test_an_alias_is_a_caller() -> None:
    caller = from_invoke(f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend:settlement-job")
    assert (caller.id, caller.account, caller.via) == ("alias/settlement-job", ACCOUNT, "invoke")


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:vend", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:vend:$LATEST",
        f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:vend:7", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:vend:", "",
        f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:vend:a:b", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:vend:a\n",
    ],
)  # fmt: skip
def test_no_alias_is_no_caller(arn: str) -> None:
    with pytest.raises(NotAuthorized):
        from_invoke(arn)
