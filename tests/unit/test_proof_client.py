"""The caller's side: what makes a proof, from which credentials and for which endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from imburse_auth.caller_proof import CallerProof
from tests.fake_sts import ACCOUNT, STS_URL
from tests.machine import ENVIRON, Machine
from tests.stack import deploy
from vending.access.proof import Proof
from vending.config import Config, endpoints_of

FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend"
SINGLE = {"credential": "sandbox/tenant-a"}


@pytest.fixture(autouse=True)
def _nothing_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def session(machine: Machine, *, region: str | None = "us-east-1") -> boto3.Session:
    """A real session of the role `orders`, whose own region is not the function's."""
    who = machine.sts.role("orders")
    return boto3.Session(who.access_key_id, who.secret_access_key, who.session_token, region_name=region)


def host_of(proof: CallerProof) -> str:
    return proof._prepared()[1]


@pytest.mark.parametrize(
    "arn",
    [
        "", "imburse-vending-vend", "imburse-vending-vend:settlement-job", f"{FUNCTION}:settlement-job", f"{FUNCTION}:7",
        f"{FUNCTION}:$LATEST", f"{FUNCTION}\n", f"{ACCOUNT}:function:imburse-vending-vend", "arn:aws:iam::123456789012:role/orders",
    ],
)  # fmt: skip
def test_what_a_proof_is_for_is_a_function_and_none_of_its_aliases(arn: str) -> None:
    with pytest.raises(
        ValueError, match=r"^function_arn: must be the ARN of the vend function, without alias or version$"
    ):
        CallerProof(arn)


@pytest.mark.parametrize("region", ["us-east-1", None])
def test_the_function_s_region_is_asked_whatever_the_caller_s_own_is(region: str | None) -> None:
    machine = Machine()
    proof = CallerProof(FUNCTION, session=session(machine, region=region), clock=machine.clock)
    assert machine.invoke(SINGLE | {"proof": proof()})["accessToken"]


def test_the_endpoint_is_botocore_s_unless_that_is_the_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    in_china = FUNCTION.replace("arn:aws:", "arn:aws-cn:").replace("eu-west-1", "cn-north-1")
    assert host_of(CallerProof(in_china, session=session(machine))) == "https://sts.cn-north-1.amazonaws.com.cn"
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    assert host_of(CallerProof(FUNCTION, session=session(machine))) == STS_URL
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:4566/")
    assert host_of(CallerProof(FUNCTION, session=session(machine))) == "http://127.0.0.1:4566/"
    assert host_of(CallerProof(FUNCTION, session=session(machine), sts_url=STS_URL)) == STS_URL


def test_without_credentials_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LookupError, match="no AWS credentials"):
        CallerProof(FUNCTION, sts_url=STS_URL)()


def test_a_user_s_proof_has_no_session_token() -> None:
    machine = Machine(f'permit (principal == Caller::"arn:aws:iam::{ACCOUNT}:user/ann", action, resource);')
    ann = machine.sts.principal(f"arn:aws:iam::{ACCOUNT}:user/ann", session=False)
    proof = CallerProof(FUNCTION, session=ann.session(), sts_url=STS_URL, clock=machine.clock)()
    assert "sessionToken" not in proof
    assert machine.invoke(SINGLE | {"proof": proof})["accessToken"]


def test_threads_share_one_and_each_call_gives_another_proof() -> None:
    machine = Machine()
    proof = CallerProof(FUNCTION, session=session(machine), clock=machine.clock)
    with ThreadPoolExecutor(8) as threads:
        proofs = list(threads.map(lambda _: proof(), range(32)))
    assert len({Proof.read(one, FUNCTION).fingerprint for one in proofs}) == 32


def test_importing_it_costs_no_boto3() -> None:
    code = (
        "import sys, imburse_auth.caller_proof; sys.exit(bool({'boto3', 'botocore', 'requests'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The function's list of endpoints


def test_the_list_of_endpoints_maps_regions_to_plain_base_urls() -> None:
    assert endpoints_of("") == {}
    assert endpoints_of("eu-west-1=https://STS.eu-west-1.amazonaws.com:443/, eu-west-2 = http://127.0.0.1:80") == {
        "eu-west-1": STS_URL,
        "eu-west-2": "http://127.0.0.1",
    }


@pytest.mark.parametrize(
    "text",
    [
        STS_URL, "eu-west-1", "=https://sts.eu-west-1.amazonaws.com", "EU=https://sts.test", "eu-west-1=http://sts.test",
        "eu-west-1=https://user@sts.test", "eu-west-1=https://sts.test?x=1", "eu-west-1=https://sts.test#x", "eu-west-1=ftp://sts.test",
        f"eu-west-1={STS_URL},eu-west-1={STS_URL}", "eu-west-1=https://st\u0455.test", "eu-west-1=",
    ],
)  # fmt: skip
def test_a_list_that_is_wrong_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has a message of its own
        endpoints_of(text)


def test_a_list_that_is_wrong_names_the_variable() -> None:
    with pytest.raises(ValueError, match=r"^STS_ENDPOINTS: "):
        Config.from_env(ENVIRON | {"STS_ENDPOINTS": "eu-west-1=http://sts.test"})


def test_a_function_without_the_list_takes_no_proof() -> None:
    assert not Config.from_env(ENVIRON).sts_endpoints
    machine = Machine()
    machine.vending._prover._endpoints.clear()
    proof = CallerProof(FUNCTION, session=session(machine), sts_url=STS_URL, clock=machine.clock)()
    assert machine.invoke_refusal(SINGLE | {"proof": proof}).code == "not_authorized"


def test_the_template_lists_the_own_region_for_the_direct_door_alone() -> None:
    variables = {
        name: function["Environment"]["Variables"]
        for name, function in deploy().of_type("AWS::Lambda::Function").items()
    }
    listed = {name: endpoints_of(each["STS_ENDPOINTS"]) for name, each in variables.items() if "STS_ENDPOINTS" in each}
    assert listed == {"VendFunction": {"eu-west-1": STS_URL}}


def test_a_proven_callers_iam_policy_names_the_alias_of_nobody_and_nothing_else() -> None:
    (statement,) = json.loads(deploy().outputs["ProofCallerPolicy"])["Statement"]
    assert statement == {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "<VendFunction.Arn>:live"}
