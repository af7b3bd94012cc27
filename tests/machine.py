"""The vending machine with a fake Imburse and a fake Secrets Manager, and both its doors as a caller meets them."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from imburse_auth.hosts import Hosts
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import Transport
from tests.fake_sts import REGION, STS_URL, FakeSts
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Clock, FakeImburse, FakeLambda, FakeSecretsManager, secret
from vending.access.policy import Policy
from vending.record.audit import AuditTrail
from vending.record.log import make_logger
from vending.service import Vending
from vending.supply.waker import Waker

ROOT = Path(__file__).parents[1]
POLICY_DIR = ROOT / "layers/access_policy/access_policy"
_numbers = itertools.count()
ACCOUNT = "123456789012"
ENVIRON = {
    "POWERTOOLS_SERVICE_NAME": "vend",
    "POWERTOOLS_METRICS_NAMESPACE": "ImburseVending",
    "ACCESS_POLICY": str(POLICY_DIR / "dev.cedar"),
    "IMBURSE_HOSTS": f"sandbox={BASE_URL},production=https://api.imburse.test",
    "VEND_FUNCTION": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend:access-report",
    "VEND_AS_NOBODY": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend:live",
    "VENDING_TABLE": "vending",
    "REFILL_FUNCTION": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-refill:live",
    "DELETE_ROTATED_KEYS": "false",
    "ROTATION_GRACE_SECONDS": "3600",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}


def handler_module(name: str) -> Any:
    """The module of a Lambda function, imported as the runtime would, with its environment variables set."""
    with mock.patch.dict(os.environ, ENVIRON):
        return importlib.import_module(f"handlers.{name}")


@functools.cache
def _policy(text: str) -> Policy:
    """Immutable, so one serves all machines with this text."""
    return Policy(text, (POLICY_DIR / "schema.cedarschema").read_text())


@dataclass
class Context:
    """A Lambda context."""

    alias: str | None = "settlement-job"
    aws_request_id: str = "3a1b6b6e-0000-4000-8000-000000000001"
    remaining_ms: int = 30_000

    @property
    def invoked_function_arn(self) -> str:
        arn = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend"
        return arn if self.alias is None else f"{arn}:{self.alias}"

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


def api_event(
    route: str = "token",
    *,
    role: str = "orders",
    environment: str = "sandbox",
    name: str = "tenant-a",
    body: str | None = None,
) -> dict[str, Any]:
    """The parts of a REST proxy event that matter; events/ has them whole."""
    return {
        "resource": "/v1/credentials/{environment}/{name}/" + route,
        "httpMethod": "GET" if route == "identity" else "POST",
        "headers": {"Host": "api.test"},
        "queryStringParameters": None,
        "pathParameters": {"environment": environment, "name": name},
        "requestContext": {
            "requestId": "c6af9ac6-0000-4000-8000-000000000002",
            "identity": {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/session", "sourceIp": "10.0.0.7"},
        },
        "body": body,
        "isBase64Encoded": False,
    }


@dataclass
class Refusal:
    """How either door says no."""

    status: int
    code: str
    document: dict[str, Any]
    error_type: str | None
    headers: dict[str, str]


@dataclass
class Machine:
    """Both doors of one machine. `audit` collects the records, one dict each."""

    policy: str = (POLICY_DIR / "dev.cedar").read_text()
    clock: Clock = field(default_factory=Clock)
    audit: list[dict[str, Any]] = field(default_factory=list)
    audit_failure: Exception | None = None
    table: FakeTable = field(default_factory=FakeTable)
    hosts: str = ENVIRON["IMBURSE_HOSTS"]
    real_transport: Transport | None = None  # for what must be seen on a socket: Imburse is then whoever answers there

    def __post_init__(self) -> None:
        self.lambda_ = FakeLambda()
        self.imburse = FakeImburse(self.clock)
        self.sts = FakeSts(self.clock)
        self.aws = FakeSecretsManager()
        self.members = secret()
        self.imburse.accept(self.members)
        self.aws.put("sandbox/tenant-a", self.members)
        transport = self.real_transport or self.imburse.transport()
        transport._session.mount(STS_URL, self.sts)
        self.vending = Vending(
            service="vend",
            policy=_policy(self.policy),
            secrets=SecretStore(self.aws, monotonic=self.clock),  # type: ignore[arg-type]
            transport=transport,
            hosts=Hosts.parse(self.hosts),
            audit=AuditTrail(self._write),
            # A name of its own: Powertools keeps one handler a name, bound to what standard output was at the time.
            logger=make_logger(f"vend-{next(_numbers)}"),
            table=self.table,
            waker=Waker(self.table, self.lambda_, ENVIRON["REFILL_FUNCTION"], clock=self.clock),  # type: ignore[arg-type]
            sts_endpoints={REGION: STS_URL},
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def _write(self, line: str) -> None:
        if self.audit_failure is not None:
            raise self.audit_failure
        self.audit.append(json.loads(line))

    def api(self, event: dict[str, Any], context: Context | None = None) -> dict[str, Any]:
        """What API Gateway gets back."""
        module = handler_module("api")
        with mock.patch.object(module, "vending", self.vending):
            response: dict[str, Any] = module.handler(event, context or Context())
        return response

    def invoke(self, event: object, context: Context | None = None) -> dict[str, Any]:
        """What a direct invoke gets back, or the error it raises."""
        module = handler_module("vend")
        with mock.patch.object(module, "vending", self.vending):
            answer: dict[str, Any] = module.handler(event, context or Context())
        return answer

    def api_refusal(self, event: dict[str, Any], context: Context | None = None) -> Refusal:
        """The problem that the API door answers with."""
        response = self.api(event, context)
        document = json.loads(response["body"])
        assert response["headers"]["Content-Type"] == "application/problem+json", document
        assert response["statusCode"] == document["status"]
        return Refusal(document["status"], _code(document), document, None, response["headers"])

    def invoke_refusal(self, event: object, context: Context | None = None) -> Refusal:
        """The problem that the direct door raises."""
        try:
            answer = self.invoke(event, context)
        except Exception as exc:  # noqa: BLE001 - like the runtime, which makes errorType and errorMessage of any
            document = json.loads(str(exc))
            return Refusal(document["status"], _code(document), document, type(exc).__name__, {})
        raise AssertionError(f"answered {answer.keys()}")


def _code(document: dict[str, Any]) -> str:
    kind: str = document["type"]
    assert kind.startswith("urn:imburse-vending:error:")
    return kind.rsplit(":", 1)[-1]
