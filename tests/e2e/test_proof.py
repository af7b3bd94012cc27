"""A caller who proves who they are, to real function processes and a real STS on this machine that verifies signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from imburse_auth.caller_proof import CallerProof
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport
from local.api_caller import LocalCaller
from local.serving import bind, in_background, serving
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings
from local.sts import sts
from tests.fake_table import FakeTable
from tests.fakes import secret
from tests.processes import wait_until
from vending.access.proof import Proof, Prover
from vending.errors import NotAuthorized, ProofUnavailable

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:imburse-vending-vend"
SINGLE = {"credential": "sandbox/tenant-a"}
BATCH = {"credential": "sandbox/tenant-a", "count": 2}
TOKEN = "a-session-token-of-the-tests/+=="
ROLES = {
    role.upper(): LocalCaller(role.upper(), f"{role}-secret", f"arn:aws:iam::{ACCOUNT_ID}:role/{role}")
    for role in ("orders", "operators", "stranger")
}
NO_RETRY = Config(retries={"total_max_attempts": 1}, proxies={})


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    settings = StackSettings(secrets={"imburse/sandbox/tenant-a": json.dumps(secret())}, callers=ROLES, concurrency=3)
    with in_background(LocalStack(settings)) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: LocalStack) -> LambdaClient:
    session = boto3.Session("local", "local", region_name=REGION)
    return session.client("lambda", endpoint_url=stack.lambda_url, config=NO_RETRY)


def session(role: str, *, password: str | None = None, token: str | None = TOKEN) -> boto3.Session:
    return boto3.Session(role.upper(), password or f"{role}-secret", token, region_name=REGION)


def invoke(client: LambdaClient, event: object) -> tuple[str | None, Any]:
    """The error's name, if it failed, and the answer."""
    response = client.invoke(FunctionName=f"{FUNCTION}:settlement-job", Payload=json.dumps(event).encode())
    answer = json.load(response["Payload"])
    return (answer["errorType"] if "FunctionError" in response else None), answer


def test_a_role_proves_itself_and_gets_a_token_that_works(stack: LocalStack, client: LambdaClient) -> None:
    prove = CallerProof(FUNCTION, session=session("orders"), sts_url=stack.sts_url)
    proof = prove()
    error, answer = invoke(client, SINGLE | {"proof": proof})
    assert error is None
    me = requests.get(answer["baseUrl"] + "/v1/identity/me", headers=answer["headers"], timeout=10)
    assert me.status_code == 200
    fingerprint = Proof.read(proof, FUNCTION).fingerprint

    def recorded() -> list[dict[str, Any]]:
        lines = [
            line.text for line in stack.log_lines() if '"event": "audit"' in line.text and fingerprint in line.text
        ]
        return [json.loads(line) for line in lines]

    wait_until(lambda: bool(recorded()), "the audit record")
    (record,) = recorded()
    assert (record["caller"], record["via"], record["door"]) == (ROLES["ORDERS"].arn, "proof", "invoke")
    log = "".join(line.text for line in stack.log_lines())
    assert TOKEN not in log
    assert proof["signature"] not in log


def test_the_sdks_own_endpoint_variable_leads_to_the_same_sts(
    stack: LocalStack, client: LambdaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stack.sts_url)
    assert invoke(client, SINGLE | {"proof": CallerProof(FUNCTION, session=session("orders"))()})[0] is None
    identity = session("orders").client("sts", config=NO_RETRY).get_caller_identity()
    assert (identity["Arn"], identity["Account"]) == (ROLES["ORDERS"].user_arn, ACCOUNT_ID)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        session("orders", password="x").client("sts", config=NO_RETRY).get_caller_identity()
    with pytest.raises(ClientError, match="InvalidAction"):
        session("orders").client("sts", config=NO_RETRY).get_session_token()


@pytest.mark.parametrize(
    ("role", "password", "function", "change"),
    [
        ("stranger", None, FUNCTION, {}),
        ("nobody", None, FUNCTION, {}),
        ("orders", "another secret", FUNCTION, {}),
        ("orders", None, f"{FUNCTION}2", {}),
        ("orders", None, FUNCTION, {"nonce": "n" * 32}),
        ("orders", None, FUNCTION, {"sessionToken": "another"}),
        ("orders", None, FUNCTION, {"accessKeyId": "OPERATORS"}),
    ],
)
def test_a_wrong_proof_is_refused_through_an_alias_that_may_vend(
    stack: LocalStack, client: LambdaClient, role: str, password: str | None, function: str, change: dict[str, str]
) -> None:
    proof = CallerProof(function, session=session(role, password=password), sts_url=stack.sts_url)()
    assert invoke(client, SINGLE | {"proof": proof | change})[0] == "NotAuthorized"


def test_a_proof_for_a_batch_is_good_once_over_all_environments(stack: LocalStack, client: LambdaClient) -> None:
    event = BATCH | {"proof": CallerProof(FUNCTION, session=session("orders"), sts_url=stack.sts_url)()}
    with ThreadPoolExecutor(6) as threads:
        errors = [error for error, _ in threads.map(lambda _: invoke(client, event), range(6))]
    # A table that takes longer than 0.3 s, as it may on a busy machine, lets nothing pass; it may hold the proof all the same.
    assert errors.count(None) <= 1
    assert errors.count(None) == 1 or "ProofUnavailable" in errors
    assert set(errors) <= {None, "NotAuthorized", "ProofUnavailable"}
    assert invoke(client, event)[0] in ("NotAuthorized", "ProofUnavailable")


def test_an_operator_pulls_the_brake_with_a_proof_and_nobody_replays_it(
    stack: LocalStack, client: LambdaClient
) -> None:
    prove = CallerProof(FUNCTION, session=session("operators"), sts_url=stack.sts_url)
    order = {"operate": "freeze", "scope": "credential", "target": "sandbox/other", "why": "a drill"}
    event = order | {"proof": prove()}
    assert invoke(client, event)[0] in (None, "ProofUnavailable")
    assert invoke(client, event)[0] in ("NotAuthorized", "ProofUnavailable")
    assert invoke(client, order)[0] == "NotAuthorized"  # the alias may not


# The prover on real sockets


def prover(url: str, clock: Any = lambda: datetime.now(UTC).timestamp()) -> Prover:
    return Prover({REGION: url}, Transport(), FakeTable(), clock=clock)


def test_sts_judges_the_time_by_its_own_clock() -> None:
    early = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    with in_background(serving(sts(ROLES, region=REGION), bind(0))) as url:
        proof = Proof.read(
            CallerProof(FUNCTION, session=session("orders"), sts_url=url, clock=lambda: early)(), FUNCTION
        )
        with pytest.raises(NotAuthorized) as refused:
            prover(url, lambda: early).caller(proof, deadline=Deadline.after(10))
    assert refused.value.reason == "proof: STS does not accept it: SignatureDoesNotMatch"


def test_an_sts_in_another_region_does_not_take_the_proof() -> None:
    with in_background(serving(sts(ROLES, region="us-east-1"), bind(0))) as url:
        proof = Proof.read(CallerProof(FUNCTION, session=session("orders"), sts_url=url)(), FUNCTION)
        with pytest.raises(NotAuthorized):
            prover(url).caller(proof, deadline=Deadline.after(10))


def test_an_sts_that_is_down_is_a_fault_that_passes() -> None:
    with bind(0) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    proof = Proof.read(CallerProof(FUNCTION, session=session("orders"), sts_url=url)(), FUNCTION)
    with pytest.raises(ProofUnavailable) as failed:
        prover(url).caller(proof, deadline=Deadline.after(10))
    assert failed.value.retryable


def test_an_sts_that_hangs_costs_no_more_than_the_time_there_is() -> None:
    with bind(0) as listener:  # it takes connections and says nothing
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        proof = Proof.read(CallerProof(FUNCTION, session=session("orders"), sts_url=url)(), FUNCTION)
        started = Deadline.after(0)
        with pytest.raises(ProofUnavailable):
            prover(url).caller(proof, deadline=Deadline.after(0.6))
        assert -started.remaining_seconds() < 2
