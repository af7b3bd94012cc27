"""The story of `make demo`: each step is done for real, checked, and told.

Every step raises StepFailed when anything else came than what it promises.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import requests
from mypy_boto3_lambda import LambdaClient
from mypy_boto3_secretsmanager import SecretsManagerClient

from local.demo_clients import TIMEOUT_SECONDS, Signed
from local.demo_voice import StepFailed, Voice, abbreviated, expect

CREDENTIAL = "sandbox/tenant-a"
VEND_FUNCTION = "imburse-vending-vend"
LOG_DEADLINE_SECONDS = 3.0

_AUDIT = '"event": "audit"'


@dataclass(frozen=True)
class Scene:
    """The running system, as seen by those who use it.

    ``sign_as(access_key_id, secret)`` answers a signature, by default with the key's own secret; ``log_lines`` what the
    functions wrote so far.
    """

    api_url: str
    imburse_url: str
    vend_client: LambdaClient
    secrets: SecretsManagerClient
    sign_as: Callable[[str, str | None], Signed]
    log_lines: Callable[[], Sequence[str]]


class Story:
    """The steps, in the order they are told; what an earlier step got is used by the later ones."""

    def __init__(self, scene: Scene, voice: Voice) -> None:
        self._scene = scene
        self._voice = voice
        self._private_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._tokens: list[dict[str, Any]] = []

    def tell(self) -> None:
        """Tell it all."""
        for step in (
            self.store_a_key,
            self.vend_to_a_job,
            self.vend_to_a_microservice,
            self.use_the_token,
            self.use_it_again,
            self.turn_strangers_away,
            self.vend_a_batch,
            self.read_the_record,
        ):
            step()

    def store_a_key(self) -> None:
        self._voice.step(
            "Store a key", "The Imburse portal shows a private key once. It goes into Secrets Manager only."
        )
        key = {
            "publicKey": str(uuid.uuid4()),
            "privateKey": self._private_key,
            "accountId": str(uuid.uuid4()),
            "tenantId": str(uuid.uuid4()),
        }
        made = requests.post(f"{self._scene.imburse_url}/control/keys", json=key, timeout=TIMEOUT_SECONDS)
        expect(made.status_code, 201, "making a key in the emulated portal")
        name = f"imburse/{CREDENTIAL}"
        self._voice.asks(f"secretsmanager.create_secret({name})")
        self._scene.secrets.create_secret(Name=name, SecretString=json.dumps(key))
        self._voice.gets(f"public key {key['publicKey']}, private key not shown")
        stored = self._scene.secrets.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"]
        expect(json.loads(stored) == key, expected=True, what="the stored secret equals the key")
        self._voice.proves("callers never see it: from now on they name the credential " + CREDENTIAL)

    def vend_to_a_job(self) -> None:
        self._voice.step(
            "A scheduled job asks", "It invokes the function through an alias of its own; the alias is its name."
        )
        before = self._exchanges()
        token = json.loads(self._invoke("settlement-job", {"credential": CREDENTIAL}))
        expect(self._exchanges(), before + 1, "requests that Imburse saw")
        self._keep(token)
        self._voice.proves("the policy allowed it: one signed request to Imburse, one token, handed over once")

    def vend_to_a_microservice(self) -> None:
        self._voice.step("A microservice asks", "It signs an HTTP request with its IAM role, as any AWS client does.")
        answer = self._post("token", "orders", self._scene.sign_as("orders", None))
        expect(answer.status_code, 200, "the answer's status")
        expect(answer.headers.get("Cache-Control"), "no-store", "Cache-Control")
        self._keep(answer.json())
        expect(len({token["accessToken"] for token in self._tokens}), 2, "different tokens so far")
        self._voice.proves("the same credential by the other door, and another token")

    def use_the_token(self) -> None:
        self._voice.step(
            "Use the token", "The answer carries the headers to send, so a caller need not know the protocol."
        )
        answer = self._me(self._tokens[-1])
        expect(answer.status_code, 200, "the status of /v1/identity/me")
        accounts = [account["accountId"] for account in answer.json()["accounts"]]
        tenants = [tenant["tenantId"] for tenant in answer.json()["tenants"]]
        headers = self._tokens[-1]["headers"]
        expect(accounts, [headers["x-account-id"]], "the accounts reached")
        expect(tenants, [headers["x-tenant-id"]], "the tenants reached")
        self._voice.gets(f"200 account {accounts[0]}")
        self._voice.gets(f"    tenant  {tenants[0]}")
        self._voice.proves("Imburse accepts it, for the account and the tenant of the key")

    def use_it_again(self) -> None:
        self._voice.step("Use it again", "An Imburse token is good for one use, so it is vended to one caller, once.")
        answer = self._me(self._tokens[-1])
        expect(answer.status_code, 401, "the status of a second use")
        code = answer.json()["errors"][0]["errorCode"]
        expect(code, "ACCESS_TOKEN_ALREADY_USED", "the error code")
        self._voice.gets(f"401 {code}")
        self._voice.proves("spent; ask for the next one")

    def turn_strangers_away(self) -> None:
        self._voice.step(
            "Strangers ask", "Three who may not: a forger, a role no policy line names, and an invoke without an alias."
        )
        before = self._exchanges()
        forged = self._post(
            "token", "orders, with a guessed secret", self._scene.sign_as("orders", secrets.token_urlsafe(30))
        )
        expect(forged.status_code, 403, "the status for a forged signature")
        self._voice.gets(f"403 {forged.headers.get('x-amzn-ErrorType')}")
        unnamed = self._post("token", "stranger", self._scene.sign_as("stranger", None))
        expect(unnamed.status_code, 403, "the status for a role without a policy line")
        expect(unnamed.json().get("type"), "urn:imburse-vending:error:not_authorized", "the problem's type")
        self._voice.gets(f"403 {unnamed.json()['type']}")
        refused = json.loads(self._invoke(None, {"credential": CREDENTIAL}, error_expected=True))
        expect(refused.get("errorType"), "NotAuthorized", "the error type of an invoke without alias")
        self._voice.gets(f"function error {refused['errorType']}")
        expect(self._exchanges(), before, "requests that Imburse saw")
        self._voice.proves("nobody got anything, and Imburse was not even asked")

    def vend_a_batch(self) -> None:
        self._voice.step("Five at once", "A job with many payments asks once; the tokens are exchanged in parallel.")
        batch = json.loads(self._invoke("settlement-job", {"credential": CREDENTIAL, "count": 5}))
        expect(batch["requested"], 5, "tokens requested")
        expect(batch["failures"], [], "failures")
        tokens = batch["tokens"]
        expect(
            len({token["accessToken"] for token in tokens + self._tokens}), 5 + len(self._tokens), "different tokens"
        )
        statuses = [self._me(token, quiet=True).status_code for token in tokens]
        expect(statuses, [200] * 5, "the statuses of one use each")
        self._tokens += tokens
        self._voice.gets("tokens with SHA-256 " + " ".join(f"{_fingerprint(token)[:8]}…" for token in tokens))
        self._voice.proves("five different tokens, and Imburse accepted each of them once")

    def read_the_record(self) -> None:
        self._voice.step(
            "Read the record", "Every answer, yes or no, left one audit line before it left. Step 3 left this:"
        )
        records = self._audit_records(5)
        expect(
            sorted(record["decision"] for record in records), ["allow"] * 3 + ["deny"] * 2, "the decisions on record"
        )
        fingerprint = _fingerprint(self._tokens[1])
        record = next((r for r in records if [t["sha256"] for t in r.get("tokens", [])] == [fingerprint]), {})
        expect(record.get("caller"), "arn:aws:iam::123456789012:role/orders", "who got the token of step 3")
        told = ("time", "caller", "door", "action", "credential", "decision", "policies")
        self._voice.document({name: record[name] for name in told} | {"token sha256": fingerprint})
        lines = self._scene.log_lines()
        secret_texts = [self._private_key, *(token["accessToken"] for token in self._tokens)]
        leaks = sum(text in line for line in lines for text in secret_texts)
        expect(leaks, 0, "log lines that hold the private key or a token")
        self._voice.proves(f"5 records; in all {len(lines)} log lines no private key and no token")

    def _invoke(self, alias: str | None, event: dict[str, Any], *, error_expected: bool = False) -> str:
        function = f"{VEND_FUNCTION}:{alias}" if alias else VEND_FUNCTION
        self._voice.asks(f"lambda.invoke({function}, {json.dumps(event)})")
        answer = self._scene.vend_client.invoke(FunctionName=function, Payload=json.dumps(event))
        payload = answer["Payload"].read().decode()
        if ("FunctionError" in answer) != error_expected:
            raise StepFailed(abbreviated(f"the invoke answered {payload}"))
        return payload

    def _post(self, route: str, who: str, signature: Signed) -> requests.Response:
        path = f"/v1/credentials/{CREDENTIAL}/{route}"
        self._voice.asks(f"POST {path}   signed as role/{who}")
        return requests.post(self._scene.api_url + path, auth=signature, timeout=TIMEOUT_SECONDS)

    def _me(self, token: dict[str, Any], *, quiet: bool = False) -> requests.Response:
        if not quiet:
            names = ", ".join(token["headers"])
            self._voice.asks(f"GET /v1/identity/me   with the headers {names}")
        return requests.get(f"{token['baseUrl']}/v1/identity/me", headers=token["headers"], timeout=TIMEOUT_SECONDS)

    def _keep(self, token: dict[str, Any]) -> None:
        expect(token["credential"], CREDENTIAL, "the credential of the token")
        expect(1700 < token["expiresIn"] <= 1800, expected=True, what="the token lives for 30 minutes")
        self._tokens.append(token)
        self._voice.gets(
            f"accessToken {token['accessToken']}  SHA-256 {_fingerprint(token)[:8]}…  expires {token['expiresAt']}"
        )

    def _exchanges(self) -> int:
        statistics = requests.get(f"{self._scene.imburse_url}/control/statistics", timeout=TIMEOUT_SECONDS).json()
        return int(statistics["exchangeRequests"])

    def _audit_records(self, count: int) -> list[dict[str, Any]]:
        """Answer the audit records, waiting for ``count``: a log line may come a moment after the answer it belongs to."""
        deadline = time.monotonic() + LOG_DEADLINE_SECONDS
        while True:
            records = [json.loads(line) for line in self._scene.log_lines() if _AUDIT in line]
            if len(records) >= count or time.monotonic() > deadline:
                return records
            time.sleep(0.05)


def _fingerprint(token: dict[str, Any]) -> str:
    return hashlib.sha256(token["accessToken"].encode()).hexdigest()
