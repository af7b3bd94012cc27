"""The last step of `make demo`: Imburse's exchange is cut off, and vending goes on from a pool filled before."""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from typing import Any

import requests

from local.demo_clients import TIMEOUT_SECONDS
from local.demo_story import LOG_DEADLINE_SECONDS, Scene
from local.demo_voice import StepFailed, Voice, expect

ASK_SECONDS = 2 * TIMEOUT_SECONDS
CREDENTIAL = "sandbox/tenant-b"
REFILL_FUNCTION = "imburse-vending-refill:live"
POOLED = 5
ORDERS = "arn:aws:iam::123456789012:role/orders"


class Outage:
    """One step, told in four parts. Raises StepFailed when anything else came than what it promises."""

    def __init__(self, scene: Scene, voice: Voice) -> None:
        self._scene = scene
        self._voice = voice

    def tell(self) -> None:
        """Tell it all; Imburse works again afterwards."""
        self._voice.step(
            "Imburse is cut off, and vending goes on",
            "A secret may say `poolMin`: tokens are then exchanged ahead of need.",
        )
        self._fill_a_pool()
        try:
            self._cut_imburse_off()
            self._claim_all()
            self._find_the_pool_empty()
        finally:
            self._imburse("DELETE", "faults")
        self._come_back()

    def _fill_a_pool(self) -> None:
        key = {
            "publicKey": str(uuid.uuid4()),
            "privateKey": base64.b64encode(secrets.token_bytes(32)).decode(),
            "accountId": str(uuid.uuid4()),
            "tenantId": str(uuid.uuid4()),
        }
        expect(self._imburse("POST", "keys", key).status_code, 201, "making a key in the emulated portal")
        secret = json.dumps(key | {"poolMin": POOLED, "poolMax": 4 * POOLED})
        self._scene.secrets.create_secret(Name=f"imburse/{CREDENTIAL}", SecretString=secret)
        before = self._issued()
        self._voice.asks(f"lambda.invoke({REFILL_FUNCTION}, {{}})   as its schedule does each minute")
        answer = self._scene.vend_client.invoke(FunctionName=REFILL_FUNCTION, Payload=b"{}")
        if answer.get("FunctionError"):
            raise StepFailed(f"the refill answered {answer['Payload'].read().decode()}")
        expect(self._issued() - before, POOLED, "tokens exchanged ahead of need")
        self._voice.gets(f"{POOLED} tokens of {CREDENTIAL} are in the pool, for at most 30 minutes")

    def _cut_imburse_off(self) -> None:
        fault = {"kind": "status", "status": 503, "path": "/v1/identity/hmac"}
        self._voice.asks("Imburse answers every exchange with 503 from here on")
        expect(self._imburse("POST", "faults", fault).status_code, 201, "cutting Imburse off")

    def _claim_all(self) -> None:
        before = self._issued()
        tokens = []
        for _ in range(POOLED):
            answer = self._ask()
            expect(answer.status_code, 200, "the status of a vend while Imburse is cut off")
            tokens.append(answer.json())
        expect(len({token["accessToken"] for token in tokens}), POOLED, "different tokens")
        expect(self._issued(), before, "tokens that Imburse issued by now")
        used = [self._use(token) for token in tokens]
        expect(used, [200] * POOLED, "the statuses of one use each")
        expect(self._sources(POOLED), ["pool"] * POOLED, "where the record says they came from")
        leaks = sum(token["accessToken"] in line for line in self._scene.log_lines() for token in tokens)
        expect(leaks, 0, "log lines that hold a token")
        self._voice.gets(f"200 five times, {POOLED} different tokens; the audit record says: from the pool")
        self._voice.proves("each was handed out once and worked once, and Imburse was not needed")

    def _find_the_pool_empty(self) -> None:
        answer = self._ask()
        expect(answer.status_code, 503, "the status once the pool is empty")
        kind = answer.json().get("type")
        expect(kind, "urn:imburse-vending:error:upstream_unavailable", "the problem's type")
        expect("Retry-After" in answer.headers, expected=True, what="Retry-After is there")
        self._voice.gets(f"503 {kind}   Retry-After {answer.headers['Retry-After']}")
        self._voice.proves("an empty pool is no secret: the caller learns when to ask again")

    def _come_back(self) -> None:
        self._voice.asks("Imburse is back")
        answer = self._ask()
        expect(answer.status_code, 200, "the status when Imburse is back")
        self._voice.gets("200")
        self._voice.proves(
            "vending by exchange again at once; the refill waits a few seconds, then fills the pool gently"
        )

    def _ask(self) -> requests.Response:
        path = f"/v1/credentials/{CREDENTIAL}/token"
        self._voice.asks(f"POST {path}   signed as role/orders")
        return requests.post(self._scene.api_url + path, auth=self._scene.sign_as("orders", None), timeout=ASK_SECONDS)

    def _use(self, token: dict[str, Any]) -> int:
        answer = requests.get(f"{token['baseUrl']}/v1/identity/me", headers=token["headers"], timeout=TIMEOUT_SECONDS)
        return answer.status_code

    def _issued(self) -> int:
        return int(self._imburse("GET", "statistics").json()["tokensIssued"])

    def _imburse(self, method: str, what: str, document: dict[str, Any] | None = None) -> requests.Response:
        url = f"{self._scene.imburse_url}/control/{what}"
        return requests.request(method, url, json=document, timeout=TIMEOUT_SECONDS)

    def _sources(self, count: int) -> list[str]:
        """Answer where the tokens of this credential came from, waiting for the records of ``count`` vends."""
        deadline = time.monotonic() + LOG_DEADLINE_SECONDS
        while True:
            records = [json.loads(line) for line in self._scene.log_lines() if '"event": "audit"' in line]
            vends = [r for r in records if (r.get("credential"), r.get("caller")) == (CREDENTIAL, ORDERS)]
            if len(vends) >= count or time.monotonic() > deadline:
                return [token["source"] for record in vends for token in record.get("tokens", [])]
            time.sleep(0.05)
