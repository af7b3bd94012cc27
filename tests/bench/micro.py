"""What signing, deciding, claiming and a batch cost, each beside the least it could cost, in one run and without a cloud.

`python -m tests.bench.micro [--out FOLDER] [--quick] [--only NAME ...]` prints tables and writes micro.json. It takes about a
minute; `--quick` takes a fifth of the samples. The targets are those of the README; nothing passes or fails by them.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import requests
from rich.console import Console

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.exchange import EXCHANGE_PATH
from imburse_auth.hmac_token import sign
from imburse_auth.hosts import Hosts
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import MAX_CONNECTIONS, Transport
from tests import dynalite_server
from tests.bench.side_by_side import Comparison, Contestant, compare, document, table
from tests.bench.slow_upstream import slow_upstream
from tests.fake_table import FakeTable
from tests.fakes import FakeLambda, FakeSecretsManager, private_key, secret
from tests.machine import ACCOUNT, ENVIRON, POLICY_DIR, Context
from tests.pool_racers import CREDENTIAL, KEY, pooled
from vending.access import proof
from vending.access.caller import Caller
from vending.access.policy import Policy
from vending.record.audit import AuditTrail
from vending.record.log import make_logger
from vending.request import from_invoke
from vending.service import Vending, Visit
from vending.supply.pool import HANDFUL, Pool
from vending.supply.waker import Waker
from vending.table import Table, dynamodb_client

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RULES = (10, 100, 1000)
BATCH = 500
LATENCY_SECONDS = 0.1
CLAIMS = 500
WARM_UP_CLAIMS = 50
DEADLINE_SECONDS = 30


def signing(rounds: int) -> Comparison:
    """A whole HMAC token beside what no HMAC token can do without: its MAC, the key out of base64, the signature into it."""
    encoded = private_key()
    api_key = ApiKey("public-1", encoded, "account-1")
    message = f"public-1:{'0' * 32}:1614350382:".encode()
    contestants = [
        Contestant("hmac.digest and two base64 calls", lambda: _bare_signature(encoded, message), calls=100),
        Contestant("sign", lambda: sign(api_key), calls=100),
        Contestant(
            "sign, nonce and time given", lambda: sign(api_key, nonce="0" * 32, timestamp=1614350382), calls=100
        ),
    ]
    target = "target: sign at most 2 x"
    return compare("Sign", contestants, rounds=rounds, warm_up=rounds // 10 + 1, target=target)


def deciding(rounds: int) -> Comparison:
    """A decision by the last of so many rules beside one by the only rule."""
    contestants = [_decision(1, "1 rule"), *(_decision(count, f"{count:,} rules") for count in RULES)]
    target = "target: 1,000 rules at most 3 x"
    return compare("Decide by policy", contestants, rounds=rounds, warm_up=rounds // 10 + 1, target=target)


def claiming(rounds: int) -> Comparison:
    """A claim beside one conditional delete, and beside the two calls that a claim is made of, on a dynalite of our own."""
    with dynalite_server.dynalite() as server:
        bare, name = dynalite_server.client(server.url), server.new_table()
        environ = {**ENVIRON, "AWS_ENDPOINT_URL_DYNAMODB": server.url}
        with mock.patch.dict(os.environ, environ):  # the functions' own client, but for its patience
            pool = Pool(
                Table(dynamodb_client(patience_seconds=DEADLINE_SECONDS), name), patience_seconds=DEADLINE_SECONDS
            )
        warm_up = min(WARM_UP_CLAIMS, rounds)
        bare_pool = Pool(Table(bare, name))
        others = CredentialId("sandbox", "deleted"), CredentialId("sandbox", "found-and-deleted")
        for number in range(warm_up + rounds):
            for credential in (CREDENTIAL, *others):
                bare_pool.put(credential, pooled(f"token-{number}", 1800))
        keys = [iter(_items(bare, name, f"pool#{credential}", warm_up + rounds)) for credential in others]

        def delete(pk: str, sk: str) -> None:
            answer = bare.delete_item(
                TableName=name,
                Key={"pk": {"S": pk}, "sk": {"S": sk}},
                ConditionExpression="attribute_exists(pk)",
                ReturnValues="ALL_OLD",
            )
            assert answer["Attributes"]

        def find() -> None:
            _items(bare, name, f"pool#{others[1]}", HANDFUL)

        def find_and_delete() -> None:
            find()
            delete(f"pool#{others[1]}", next(keys[1]))

        def claim() -> None:
            assert pool.claim(CREDENTIAL, KEY, least_seconds=300)

        contestants = [
            Contestant("a bare conditional delete", lambda: delete(f"pool#{others[0]}", next(keys[0]))),
            Contestant(f"a bare query of {HANDFUL}", find),
            Contestant("a bare query and conditional delete", find_and_delete),
            Contestant("claim", claim),
        ]
        target = "target: claim at most 2 x"
        return compare("Claim from the pool", contestants, rounds=rounds, warm_up=warm_up, target=target)


def batching(rounds: int) -> Comparison:
    """A batch through the whole machine beside bare exchanges one after the other, as many as the batch needs at the least."""
    trips = -(-BATCH // MAX_CONNECTIONS)
    members = secret()
    api_key = ApiKey.from_secret(json.dumps(members))
    with slow_upstream(LATENCY_SECONDS, members) as url, requests.Session() as session:
        session.trust_env = False

        def ideal() -> None:
            for _ in range(trips):
                headers = {"Authorization": sign(api_key).authorization}
                session.post(url + EXCHANGE_PATH, headers=headers, timeout=DEADLINE_SECONDS).raise_for_status()

        contestants = [
            Contestant(f"{trips} bare exchanges one after the other", ideal),
            Contestant(f"a batch of {BATCH}", _batch(url, members)),
        ]
        what = f"Batch, Imburse answering after {LATENCY_SECONDS * 1000:.0f} ms"
        return compare(what, contestants, rounds=rounds, warm_up=1, target="target: at most 1.3 x")


# Each with its rounds, and those of --quick.
COMPARISONS: dict[str, tuple[Callable[[int], Comparison], int, int]] = {
    "sign": (signing, 1000, 200),
    "decide": (deciding, 1000, 200),
    "claim": (claiming, CLAIMS, 100),
    "batch": (batching, 7, 2),
}


def _bare_signature(encoded_key: str, message: bytes) -> bytes:
    return base64.b64encode(hmac.digest(base64.b64decode(encoded_key), message, "sha256"))


def _decision(rules: int, name: str) -> Contestant:
    """The last of the rules allows; each is about a role and a credential of its own, like those of dev.cedar."""
    text = "\n".join(
        f'@id("rule-{number}")\npermit (\n'
        f'  principal == Caller::"arn:aws:iam::{ACCOUNT}:role/service-{number}",\n'
        f'  action == Action::"vend",\n  resource == Credential::"sandbox/tenant-{number}"\n);'
        for number in range(1, rules + 1)
    )
    policy = Policy(text, (POLICY_DIR / "schema.cedarschema").read_text())
    caller = Caller(f"arn:aws:iam::{ACCOUNT}:role/service-{rules}", ACCOUNT, "api", "10.0.0.7")
    credential = CredentialId("sandbox", f"tenant-{rules}")
    assert policy.decide(caller, "vend", credential).policy_ids == (f"rule-{rules}",)
    return Contestant(name, lambda: policy.decide(caller, "vend", credential))


def _items(client: DynamoDBClient, name: str, pk: str, limit: int) -> list[str]:
    """The sort keys of a partition, by the query that a claim makes."""
    answer = client.query(
        TableName=name,
        KeyConditionExpression="pk = :pk AND sk >= :sk",
        ExpressionAttributeValues={":pk": {"S": pk}, ":sk": {"S": "0"}},
        ProjectionExpression="#sk, #expires, #public_key, #account, #tenant, #base_url",
        ExpressionAttributeNames={
            f"#{name}": name for name in ("sk", "expires", "public_key", "account", "tenant", "base_url")
        },
        ConsistentRead=True,
        Limit=limit,
    )
    return [item["sk"]["S"] for item in answer["Items"]]


def _batch(url: str, members: dict[str, str]) -> Callable[[], object]:
    """A batch by the direct door of a machine that is whole but for AWS: table, secret and function are in memory."""
    aws, waking, table = FakeSecretsManager(), FakeLambda(), FakeTable()
    aws.put("sandbox/tenant-a", members)
    rule = '@id("all") permit (principal == Caller::"alias/settlement-job", action == Action::"vend", resource);'
    vending = Vending(
        service="vend",
        policy=Policy(rule, (POLICY_DIR / "schema.cedarschema").read_text()),
        secrets=SecretStore(aws),  # type: ignore[arg-type]
        transport=Transport(),
        hosts=Hosts({"sandbox": url}),
        audit=AuditTrail(lambda _: None),
        logger=make_logger("bench"),
        table=table,
        waker=Waker(table, waking, ENVIRON["REFILL_FUNCTION"]),  # type: ignore[arg-type]
    )
    event, context = {"credential": "sandbox/tenant-a", "count": BATCH}, Context()

    def batch() -> None:
        visit = Visit.of("invoke", context.aws_request_id, None, context)  # type: ignore[arg-type]
        body = vending.serve(
            visit, lambda: proof.from_invoke(event, context.invoked_function_arn), lambda: from_invoke(event)
        )
        assert len(body["tokens"]) == BATCH

    return batch


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(".local/bench"), help="folder for micro.json")
    parser.add_argument("--quick", action="store_true", help="a fifth of the samples")
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), help="these, not all")
    options = parser.parse_args(arguments)
    console = Console(width=120)
    comparisons = []
    for name in options.only:
        measure, rounds, quick = COMPARISONS[name]
        with redirect_stdout(io.StringIO()):  # the machine's metrics and log lines
            comparisons.append(measure(quick if options.quick else rounds))
        console.print(table(comparisons[-1]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "micro.json").write_text(json.dumps(document(comparisons, at=datetime.now(UTC)), indent=1) + "\n")
    console.print(f"written: {options.out}/micro.json")


if __name__ == "__main__":
    main()
