"""What the tests of the probe stand on: a listing, secrets with a date, and a vend function behind a Lambda client."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.fakes import FakeSecretsManager
from tests.machine import Context, Machine


class VersionedSecretsManager:
    """A FakeSecretsManager that also tells since when the version is there, if `created_at` says so."""

    def __init__(self, aws: FakeSecretsManager) -> None:
        self.aws = aws
        self.created_at: datetime | None = None

    def get_secret_value(self, **arguments: Any) -> dict[str, Any]:
        answer = self.aws.get_secret_value(**arguments)
        return answer if self.created_at is None else answer | {"CreatedDate": self.created_at}


class Listing:
    """Secrets Manager's listing, two names a page."""

    def __init__(self, secrets_manager: VersionedSecretsManager) -> None:
        self.secrets_manager = secrets_manager
        self.failure: Exception | None = None

    def get_paginator(self, operation: str) -> Listing:
        assert operation == "list_secrets"
        if self.failure is not None:
            raise self.failure
        return self

    def paginate(self, *, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803 - boto3's names
        assert Filters == [{"Key": "name", "Values": ["imburse/"]}]
        names = list(self.secrets_manager.aws.secrets)
        return [{"SecretList": [{"Name": name} for name in page]} for page in (names[:2], names[2:])]


class FakeLambda:
    """Invokes the vend handler as Lambda does for an alias; `answer` gives function error and payload, or what to raise."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.invoked: list[tuple[str, Any]] = []
        self.answer: Callable[[], Any] | None = None

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's names
        self.invoked.append((FunctionName, json.loads(Payload)))
        result = self.answer() if self.answer is not None else self._vend(FunctionName, Payload)
        if isinstance(result, Exception):
            raise result
        error, document = result
        response = {"Payload": io.BytesIO(json.dumps(document).encode())}
        return response if error is None else response | {"FunctionError": error}

    def _vend(self, function: str, payload: bytes) -> tuple[str | None, object]:
        try:
            return None, self.machine.invoke(json.loads(payload), Context(alias=function.rsplit(":", 1)[-1]))
        except Exception as exc:  # noqa: BLE001 - as the runtime does
            return "Unhandled", {"errorType": type(exc).__name__, "errorMessage": str(exc)}
