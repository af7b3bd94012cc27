"""What signing, deciding, claiming and a batch cost, each beside the least it could cost, in one run and without a cloud.

`python -m tests.bench --only sign decide load claim batch` runs these, in about a minute. The targets are those of the README.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING
from unittest import mock

import cedarpy
import requests

from imburse_auth.api_key import ApiKey
from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.exchange import EXCHANGE_PATH
from imburse_auth.hmac_token import sign
from imburse_auth.hosts import Hosts
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import MAX_CONNECTIONS, Transport
from tests import dynalite_server
from tests.bench.side_by_side import Comparison, Contestant, Target, compare, gathered
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

SCHEMA = (POLICY_DIR / "schema.cedarschema").read_text()
RULES = (10, 100, 1000)
BATCH = 500
LATENCY_SECONDS = 0.1
CLAIMS = 32 * HANDFUL
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
    return compare("Sign", contestants, rounds=rounds, warm_up=rounds // 10 + 1, targets=[Target("sign", 2)])


def deciding(rounds: int) -> Comparison:
    """A decision by the last of so many rules beside one by the only rule, and of 1,000 by the first, and for a stranger."""
    most = RULES[-1]
    thousand = Policy(_rules(most), SCHEMA)
    contestants = [
        _decision("1 rule", Policy(_rules(1), SCHEMA), 1),
        *(_decision(f"{count:,} rules", Policy(_rules(count), SCHEMA), count) for count in RULES),
        _decision(f"{most:,} rules, the first decides", thousand, 1),
        _decision(f"{most:,} rules, a stranger asks", thousand, most + 1, allowed=False),
    ]
    targets = [Target(f"{most:,} rules", 3)]
    shows = [f"{count:,} rules" for count in RULES]
    return compare(
        "Decide by policy", contestants, rounds=rounds, warm_up=rounds // 10 + 1, targets=targets, shows=shows
    )


def deciding_at_worst(rounds: int) -> Comparison:
    """Where all rules or many must be asked: their heads name nobody, or who asks. Apart: it leaves cold caches to the next."""
    most = RULES[-1]
    of_one, of_five = (Policy(_rules(most, callers=callers), SCHEMA) for callers in (1, 5))
    by_condition = [(count, Policy(_rules(count, in_head=False), SCHEMA)) for count in RULES]
    contestants = [
        _decision("1 rule", Policy(_rules(1), SCHEMA), 1),
        _decision(f"{most:,} rules, a fifth names the caller", of_five, most, callers=5),
        _decision(f"{most:,} rules, all name the caller", of_one, most, callers=1),
        *(_decision(f"{count:,} rules, no head names a caller", policy, count) for count, policy in by_condition),
    ]
    shows = [contestant.name for contestant in contestants if contestant.name.startswith(f"{most:,}")]
    return compare("Decide by policy, at worst", contestants, rounds=rounds, warm_up=rounds // 10 + 1, shows=shows)


def loading(rounds: int) -> Comparison:
    """What a policy costs when a function starts, and how much of it is Cedar's own."""
    text = _rules(RULES[-1])

    def cedar() -> None:
        assert cedarpy.validate_policies(text, SCHEMA)
        cedarpy.PolicySet.from_str(text)
        cedarpy.policies_to_json_str(text)

    one = _rules(1)
    contestants = [
        Contestant("1 rule", lambda: Policy(one, SCHEMA)),
        Contestant(f"{RULES[-1]:,} rules, validated, parsed and made JSON by Cedar alone", cedar),
        Contestant(f"{RULES[-1]:,} rules", lambda: Policy(text, SCHEMA)),
    ]
    return compare("Load a policy", contestants, rounds=rounds, warm_up=1)


def claiming(rounds: int) -> list[Comparison]:
    """Claims in a row beside conditional deletes, and beside the two calls of a claim that must look, on a dynalite of our own.

    One claim in a handful must look at the pool, which a median does not show: the means of as many in a row are compared too.
    """
    with dynalite_server.dynalite() as server:
        bare, name = dynalite_server.client(server.url), server.new_table()
        environ = {**ENVIRON, "AWS_ENDPOINT_URL_DYNAMODB": server.url}
        with mock.patch.dict(os.environ, environ):  # the functions' own client, but for its patience
            pool = Pool(
                Table(dynamodb_client(Aws(), patience_seconds=DEADLINE_SECONDS), name),
                patience_seconds=DEADLINE_SECONDS,
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
        each = compare("Claim", contestants, rounds=rounds, warm_up=warm_up)
    in_a_row = {timing.name: _means(timing.samples, HANDFUL) for timing in each.timings}
    return [each, gathered(f"Claim, means of {HANDFUL} in a row", in_a_row, targets=[Target("claim", 2)])]


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
        what = f"Batch, Imburse at {LATENCY_SECONDS * 1000:.0f} ms"
        return compare(what, contestants, rounds=rounds, warm_up=1, targets=[Target(f"a batch of {BATCH}", 1.3)])


# Each with its rounds, and those of --quick.
COMPARISONS: dict[str, tuple[Callable[[int], Comparison | Sequence[Comparison]], int, int]] = {
    "sign": (signing, 1000, 200),
    "decide": (deciding, 1000, 200),
    "decide-at-worst": (deciding_at_worst, 200, 50),
    "load": (loading, 21, 5),
    "claim": (claiming, CLAIMS, 8 * HANDFUL),
    "batch": (batching, 7, 2),
}


def _bare_signature(encoded_key: str, message: bytes) -> bytes:
    return base64.b64encode(hmac.digest(base64.b64decode(encoded_key), message, "sha256"))


def _rules(count: int, *, callers: int | None = None, in_head: bool = True) -> str:
    """So many rules, each about a credential of its own and, unless `callers` share them, a role too, like those of dev.cedar."""
    rules = []
    for number in range(1, count + 1):
        who = f'principal == Caller::"{_role(number, callers)}"'
        what = f'resource == Credential::"sandbox/tenant-{number}"'
        head = (who, what) if in_head else ("principal", "resource")
        condition = "" if in_head else f" when {{ {who} && {what} }}"
        rules.append(
            f'@id("rule-{number}")\npermit (\n  {head[0]},\n  action == Action::"vend",\n  {head[1]}\n){condition};'
        )
    return "\n".join(rules)


def _role(number: int, callers: int | None) -> str:
    """Whom the rule of this number is about."""
    return f"arn:aws:iam::{ACCOUNT}:role/service-{number if callers is None else number % callers}"


def _decision(
    name: str, policy: Policy, number: int, *, callers: int | None = None, allowed: bool = True
) -> Contestant:
    """What the rule of this number decides, or would if there were one."""
    caller = Caller(_role(number, callers), ACCOUNT, "api", "10.0.0.7")
    credential = CredentialId("sandbox", f"tenant-{number}")
    assert policy.decide(caller, "vend", credential).policy_ids == ((f"rule-{number}",) if allowed else ())
    return Contestant(name, lambda: policy.decide(caller, "vend", credential))


def _means(samples: Sequence[float], count: int) -> list[float]:
    """Of so many samples in a row each; what is left at the end is left out, unless it is all there is."""
    starts = range(0, max(1, len(samples) - count + 1), count)
    return [fmean(samples[start : start + count]) for start in starts]


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
        policy=Policy(rule, SCHEMA),
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
