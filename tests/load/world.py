"""The local stack as the load run wants it: its credentials, its policy, and everything that can go wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from local.api_caller import LocalCaller
from local.demo_clients import secrets_client
from local.imburse import Fault, ImburseKey
from local.imburse_statistics import Statistics
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings
from tests.dynalite_server import client as dynamodb_client
from tests.dynalite_server import dynalite
from tests.fakes import secret
from tests.load.answers import Expected
from tests.load.aws_proxy import AwsProxy, How, Service
from tests.load.plan import BUDGET_PER_MINUTE, BUDGETED, INLINE, KINDS, POOLED, REPEATED, REPLACED, SHARED, Plan
from tests.load.visit import fingerprint

ACCOUNT = "account-1"
_HMAC = "/v1/identity/hmac"
_FIELDS: dict[str, dict[str, object]] = {
    INLINE: {},
    POOLED: {"poolMin": 40, "poolMax": 400},
    SHARED: {"reuse": "shared"},
    BUDGETED: {},
    REPLACED: {},
}
_EACH = 400  # of faults that take turns, more than the upstream can meet in one of them

# Each list is put in force whole; where there are several, they take turns.
_UPSTREAM: dict[str, list[Fault]] = {
    "Imburse: 0.5 s late": [Fault("latency", path=_HMAC, seconds=0.5)],
    "Imburse: 8 s late": [Fault("latency", path=_HMAC, seconds=8)],
    "Imburse: 429": [Fault("status", path=_HMAC, status=429)],
    "Imburse: 429, Retry-After": [Fault("status", path=_HMAC, status=429, retry_after="1")],
    "Imburse: 503": [Fault("status", path=_HMAC, status=503)],
    "Imburse: hangs up": [Fault(kind, path=_HMAC, times=1) for kind in ("drop", "drop_before", "drop_mid_body")] * _EACH,
    "Imburse: drips": [Fault("drip", path=_HMAC, seconds=0.1)],
    REPEATED: [Fault("same_token", path=_HMAC)],
    "Imburse: wrong content": [Fault(kind, path=_HMAC, times=1) for kind in ("garbage", "oversized", "redirect")] * _EACH,
}  # fmt: skip
_AWS: dict[str, tuple[Service, How]] = {
    "DynamoDB: stalls": ("DynamoDB", "stall"),
    "DynamoDB: errors": ("DynamoDB", "errors"),
    "DynamoDB: hangs up": ("DynamoDB", "hang up"),
    "Secrets Manager: stalls": ("secretsmanager", "stall"),
    "Secrets Manager: errors": ("secretsmanager", "errors"),
}


@dataclass
class Issued(Statistics):
    """The emulator's statistics, and besides how often it answered each token."""

    times: Counter[str] = field(default_factory=Counter)

    def count_issued(self, token: str) -> None:
        """Count a token that is about to be answered."""
        super().count_issued(token)
        self.times[fingerprint(token)] += 1


class World:
    """A running stack, and what can be done to it. Made by `world`."""

    def __init__(self, stack: LocalStack, proxy: AwsProxy, replacements: list[dict[str, Any]]) -> None:
        assert stack.imburse is not None
        self.stack = stack
        self.proxy = proxy
        self.imburse = stack.imburse
        self.issued = self.imburse.statistics = Issued()
        self._replacements = cycle(replacements)
        self._replaced = next(self._replacements)

    def begin(self, fault: str) -> None:
        """Something begins to go wrong, by its name in `plan.FAULTS`."""
        if fault in _UPSTREAM:
            for one in _UPSTREAM[fault]:
                self.imburse.faults.add(one)
        elif fault in _AWS:
            service, how = _AWS[fault]
            self.proxy.faults[service] = how
        else:
            self.imburse.keys.revoke(self._replaced["publicKey"])

    def end(self, fault: str) -> None:
        """It is well again; a key that was revoked has been replaced by a new one in the secret."""
        if fault in _UPSTREAM:
            self.imburse.faults.clear()
        elif fault in _AWS:
            self.proxy.faults.pop(_AWS[fault][0], None)
        else:
            self._replaced = next(self._replacements)
            self.imburse.keys.add(ImburseKey.from_json(self._replaced))
            client = secrets_client(self.stack.moto_url, REGION)
            client.put_secret_value(SecretId=f"imburse/{REPLACED}", SecretString=json.dumps(self._replaced))
            client.close()

    def met(self, fault: str) -> int:
        """How many requests met that fault so far, or one of its kind."""
        if fault in _UPSTREAM:
            return sum(self.imburse.faults.befell[kind] for kind in {one.kind for one in _UPSTREAM[fault]})
        return self.proxy.spoilt if fault in _AWS else self.issued.refusals["API_KEY_REVOKED"]


def keys() -> dict[str, str]:
    """The secret access key of each role."""
    return {kind.who: f"{kind.who}-secret" for kind in KINDS if kind.door == "api"}


def caller_id(door: str, who: str) -> str:
    """As policy and audit records name a caller."""
    return f"arn:aws:iam::{ACCOUNT_ID}:role/{who}" if door == "api" else f"alias/{who}"


def policy() -> str:
    """Each caller may do what its kind does, and no more."""
    rules = []
    for number, kind in enumerate(KINDS):
        if kind.refused:
            continue
        action = "inspect" if kind.action == "inspect" else "vend"
        budget = f'@budget("{BUDGET_PER_MINUTE}/minute")\n' if kind.credential == BUDGETED else ""
        rules.append(
            f'@id("load-{number}")\n{budget}permit (principal == Caller::"{caller_id(kind.door, kind.who)}",'
            f' action == Action::"{action}", resource == Credential::"{kind.credential}");\n'
        )
    return "\n".join(rules)


def _make_tables(stack: LocalStack, url: str) -> None:
    client = dynamodb_client(url)
    for table in stack.application.tables:
        keys: Any = {"AttributeDefinitions": table.attributes, "KeySchema": table.keys}
        client.create_table(TableName=table.name, BillingMode="PAY_PER_REQUEST", **keys)
        client.get_waiter("table_exists").wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    client.close()


@contextmanager
def world(plan: Plan, folder: Path) -> Iterator[tuple[World, dict[str, Expected]]]:
    """The stack, up until the block is left, and what each credential's tokens must be; logs and the policy in `folder`."""
    replaced = sum(fault == "key replaced" for _, _, fault in plan.faults())
    members = {
        name: [
            secret(publicKey=f"public-{name.split('/')[1]}-{turn}", accountId=ACCOUNT, tenantId=name.split("/")[1])
            | fields
            for turn in range(1 + replaced if name == REPLACED else 1)
        ]
        for name, fields in _FIELDS.items()
    }
    policy_file = folder / "load.cedar"
    policy_file.write_text(policy())
    proxy = AwsProxy()
    settings = StackSettings(
        secrets={f"imburse/{name}": json.dumps(turns[0]) for name, turns in members.items()},
        callers={role.upper(): LocalCaller(role.upper(), key, caller_id("api", role)) for role, key in keys().items()},
        policy=policy_file,
        concurrency=plan.concurrency,
        log_file=folder / "functions.log",
        variables={"AWS_ENDPOINT_URL_DYNAMODB": proxy.url, "AWS_ENDPOINT_URL_SECRETS_MANAGER": proxy.url},
    )
    with dynalite() as table_server, in_background(proxy.serving()), in_background(LocalStack(settings)) as stack:
        # Not moto's DynamoDB, which takes longer for a claim under load than a vend waits for it: no pool would be used.
        proxy.targets = {"DynamoDB": table_server.url, "secretsmanager": stack.moto_url}
        _make_tables(stack, table_server.url)
        expected = {
            name: Expected(ACCOUNT, name.split("/")[1], tuple(one["publicKey"] for one in turns), stack.imburse_url)
            for name, turns in members.items()
        }
        yield World(stack, proxy, members[REPLACED]), expected
