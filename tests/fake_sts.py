"""A stand-in for AWS STS that really verifies: SigV4 over exactly the request that it was sent, by botocore's own code."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests
from botocore.credentials import Credentials
from requests.adapters import BaseAdapter

from local.sigv4 import SignatureRefused, WireRequest, verify
from tests.fakes import Answered, Behaviour, _response

if TYPE_CHECKING:
    import boto3

ACCOUNT = "123456789012"
REGION = "eu-west-1"
STS_URL = f"https://sts.{REGION}.amazonaws.com"


@dataclass(frozen=True)
class Principal:
    """Somebody with an access key, and what AWS says of who they are."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None
    arn: str
    account: str

    def session(self) -> boto3.Session:
        """As much of a session as a proof wants that is told where STS is; a whole one takes 10 ms to make."""
        credentials = Credentials(self.access_key_id, self.secret_access_key, self.session_token)
        return cast("boto3.Session", SimpleNamespace(get_credentials=lambda: credentials))


class FakeSts(BaseAdapter):
    """STS behind a requests session. `script` holds behaviours for the next requests, one each, `always` one for all others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.principals: dict[str, Principal] = {}
        self.requests: list[requests.PreparedRequest] = []
        self.timeouts: list[float] = []
        self.script: list[Behaviour] = []
        self.always: Behaviour | None = None

    def role(self, name: str, account: str = ACCOUNT) -> Principal:
        """A new session of that role."""
        return self.principal(f"arn:aws:sts::{account}:assumed-role/{name}/a-session", account)

    def principal(self, arn: str, account: str = ACCOUNT, *, session: bool = True) -> Principal:
        """A new access key of that principal, with a session token or, as an IAM user has it, without."""
        key_id = ("ASIA" if session else "AKIA") + secrets.token_hex(8).upper()
        token = secrets.token_urlsafe(300) + "==" if session else None
        self.principals[key_id] = Principal(key_id, secrets.token_urlsafe(30), token, arn, account)
        return self.principals[key_id]

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        assert options["verify"] is True
        assert urlsplit(request.url or "").netloc == urlsplit(STS_URL).netloc, "a proof went to another host"
        self.requests.append(request)
        self.timeouts.append(options["timeout"].total)
        behaviour = self.script.pop(0) if self.script else self.always
        result = behaviour(request) if behaviour else self.obey(request)
        if isinstance(result, Exception):
            raise result
        return _response(request, *result)

    def close(self) -> None:
        """Nothing to close."""

    def obey(self, request: requests.PreparedRequest) -> Answered:
        """Answer as AWS does."""
        assert request.headers["Accept"] == "application/json"
        parts = urlsplit(request.url or "")
        headers = (("Host", parts.netloc), *((name, str(value)) for name, value in request.headers.items()))
        body = request.body if isinstance(request.body, bytes) else b""
        wire = WireRequest(str(request.method), request.path_url, headers, body)
        try:
            key_id = verify(wire, self._secret, self._now(), service="sts", window=timedelta(minutes=15))
        except SignatureRefused as refused:
            return self.refuse(403, refused.error_type)
        principal, authorization = self.principals[key_id], str(request.headers["Authorization"])
        # AWS wants every x-amz- header signed, a session's token with it, and that token to be the key's own.
        signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        unsigned = [
            name for name in request.headers if name.lower().startswith("x-amz-") and name.lower() not in signed
        ]
        if unsigned or request.headers.get("X-Amz-Security-Token") != principal.session_token:
            return self.refuse(403, "InvalidClientTokenId")
        if f"/{REGION}/sts/" not in authorization:
            return self.refuse(403, "SignatureDoesNotMatch")
        return self.identity(principal.arn, principal.account)

    def identity(self, arn: object, account: object = ACCOUNT) -> Answered:
        """The answer to GetCallerIdentity, as JSON."""
        result = {"Arn": arn, "Account": account, "UserId": "AROAEXAMPLE:a-session"}
        return self.answer(200, {"GetCallerIdentityResponse": {"GetCallerIdentityResult": result}})

    def refuse(self, status: int, code: str) -> Answered:
        """An error in AWS's shape."""
        return self.answer(status, {"Error": {"Type": "Sender", "Code": code, "Message": "..."}, "RequestId": "1"})

    def answer(self, status: int, payload: object, headers: Mapping[str, str] | None = None) -> Answered:
        """Any answer; bytes as they are."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return status, {"Content-Length": str(len(body)), **(headers or {})}, body

    def _secret(self, access_key_id: str) -> str | None:
        known = self.principals.get(access_key_id)
        return known.secret_access_key if known else None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)
