"""Stand-ins for Imburse and Secrets Manager that behave like them, for tests without a network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

import requests
import urllib3
from botocore.exceptions import ClientError
from requests.adapters import BaseAdapter

from imburse_auth.transport import Transport

BASE_URL = "https://sandbox.imburse.test"
NOW = 1_614_350_000.0


class Clock:
    """Time that moves only when told to, or when somebody sleeps."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def private_key() -> str:
    """A new private key, as the portal would show it."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def secret(**changes: Any) -> dict[str, Any]:
    """A tenant key's secret with a new private key. A change to None leaves the field out."""
    members = {
        "publicKey": f"public-{secrets.token_hex(4)}",
        "privateKey": private_key(),
        "accountId": "account-1",
        "tenantId": "tenant-a",
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


# Status, headers, body.
Answered = tuple[int, Mapping[str, str], bytes]
Behaviour = Callable[[requests.PreparedRequest], "Answered | Exception"]


class FakeImburse(BaseAdapter):
    """Imburse behind a requests session: verifies each HMAC token, remembers nonces, and answers a new token each time.

    `script` holds behaviours for the next requests, one each; when it is empty it answers by the rules.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.keys: dict[str, bytes] = {}
        self.nonces: list[str] = []
        self.tokens: dict[str, str] = {}
        self.requests: list[requests.PreparedRequest] = []
        self.options: list[dict[str, Any]] = []
        self.script: list[Behaviour] = []
        self.always: Behaviour | None = None
        self._lock = threading.Lock()

    def accept(self, members: Mapping[str, Any]) -> None:
        """Accept this secret's key from now on."""
        self.keys[members["publicKey"]] = base64.b64decode(members["privateKey"])

    def transport(self) -> Transport:
        """A transport whose every request ends here."""
        transport = Transport()
        transport._session.mount("https://", self)
        transport._session.mount("http://", self)
        return transport

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        assert options["timeout"].total > 0
        assert options["verify"] is True
        with self._lock:
            self.requests.append(request)
            self.options.append(options)
            behaviour = self.script.pop(0) if self.script else self.always
        result = behaviour(request) if behaviour else self.obey(request)
        if isinstance(result, Exception):
            raise result
        return _response(request, *result)

    def close(self) -> None:
        """Nothing to close."""

    def obey(self, request: requests.PreparedRequest) -> Answered:
        """Answer by the rules of protocol.md."""
        with self._lock:
            scheme, _, credentials = str(request.headers["Authorization"]).partition(" ")
            if request.url and request.url.endswith("/v1/identity/me"):
                return self._me(scheme, credentials)
            public_key, nonce, timestamp, signature = credentials.split(":")
            message = f"{public_key}:{nonce}:{timestamp}:".encode()
            key = self.keys.get(public_key)
            good = key is not None and hmac.compare_digest(
                base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode(), signature
            )
            if not good or nonce in self.nonces or abs(int(timestamp) - self.clock()) > 300:
                return self.refuse(401, "HMAC_REFUSED")
            self.nonces.append(nonce)
            token = secrets.token_urlsafe(48)
            self.tokens[token] = public_key
            return self.answer({"accessToken": token, "expires": int(self.clock()) + 1800}, status=201)

    def _me(self, scheme: str, token: str) -> Answered:
        if scheme != "Bearer" or self.tokens.pop(token, None) is None:
            return self.refuse(401, "TOKEN_SPENT")
        return self.answer({"accounts": [{"accountId": "account-1"}], "tenants": [{"tenantId": "tenant-a"}]})

    def answer(self, payload: Any, status: int = 200, **headers: str) -> Answered:
        """An answer with a JSON body, a Date by this fake's clock, and more headers, `retry_after="3"`."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        headers = {name.replace("_", "-").title(): value for name, value in headers.items()}
        return (
            status,
            {"Date": formatdate(self.clock(), usegmt=True), "Content-Length": str(len(body)), **headers},
            body,
        )

    def refuse(self, status: int, code: str = "SOME_CODE", **headers: str) -> Answered:
        """An error in the shape of protocol.md, section 5."""
        body = {"timestamp": 1, "correlationId": "0HLPSRAQ7S0I6:00000002", "errors": [{"errorCode": code}]}
        return self.answer(body, status, **headers)


def _response(
    request: requests.PreparedRequest, status: int, headers: Mapping[str, str], body: bytes
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    response.request = request
    response.url = request.url or ""
    response.raw = urllib3.HTTPResponse(
        io.BytesIO(body), headers=dict(headers), status=status, preload_content=False, enforce_content_length=False
    )
    return response


class FakeSecretsManager:
    """Secrets Manager as boto3 shows it: `secrets` maps a name to its text, `failure` is raised instead while it is set."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.failure: Exception | None = None
        self.reads: list[str] = []
        self.before_read: Callable[[], None] = lambda: None

    def put(self, name: str, members: Any) -> None:
        """Keep this as the current version."""
        self.secrets[f"imburse/{name}"] = members if isinstance(members, str) else json.dumps(members)

    def get_secret_value(self, *, SecretId: str, VersionStage: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        assert VersionStage == "AWSCURRENT"
        self.reads.append(SecretId)
        self.before_read()
        if self.failure is not None:
            raise self.failure
        if SecretId not in self.secrets:
            raise aws_error("ResourceNotFoundException")
        return {"SecretString": self.secrets[SecretId]}


class FakeLambda:
    """Lambda as boto3 shows it, for asynchronous invokes: `invoked` holds the event of each, `failure` is raised instead."""

    def __init__(self) -> None:
        self.invoked: list[Any] = []
        self.failure: Exception | None = None

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's
        assert FunctionName.endswith(":function:imburse-vending-refill:live")
        assert InvocationType == "Event"
        self.invoked.append(json.loads(Payload))
        if self.failure is not None:
            raise self.failure
        return {"StatusCode": 202, "Payload": io.BytesIO()}


def aws_error(code: str, status: int = 400) -> ClientError:
    """The error that boto3 raises for an error code of a service."""
    return ClientError(
        {"Error": {"Code": code, "Message": "..."}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetSecretValue",
    )
