"""Everything that a rotation touches, in memory: each call to it passes a gate, where the run can be killed.

Imburse is the emulator itself, without its HTTP: strict on signatures, nonces, single-use tokens and scopes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from imburse_auth.credential import CredentialId
from imburse_auth.errors import UpstreamAnswer, UpstreamRejected, UpstreamThrottled, UpstreamUnavailable
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.identity import identity_me
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import Answer, Transport, Unauthorized
from local.imburse import Imburse, ImburseKey
from local.imburse_errors import Refusal
from local.imburse_management import delete_key, make_key, tenant_keys
from tests.fake_secret_versions import FakeSecretVersions
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Clock, secret
from vending.record.audit import AuditTrail
from vending.record.metrics import VendingMetrics
from vending.rotating import Rotating
from vending.rotation.vendor import Vendor

A = CredentialId("sandbox", "tenant-a")
HOSTS = Hosts({"sandbox": BASE_URL, "production": "https://api.imburse.test"})
GRACE_SECONDS = 3600
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Gate:
    """Counts calls. `kill_at` is the number of the one that is the last, `after` whether it still has its effect.

    `failing` answers an error for a call by its name, which is raised instead of it, and `losing` one that is raised after
    it had its effect. Once killed, a process makes no more calls.
    """

    kill_at: int | None = None
    after: bool = False
    failing: Callable[[str], Exception | None] = lambda _: None
    losing: Callable[[str], Exception | None] = lambda _: None
    moment: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)
    dead: bool = False

    def pass_through(self, name: str, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        self.calls.append(name)
        if (failure := self.failing(name)) is not None:
            raise failure
        killed = self.kill_at is not None and len(self.calls) == self.kill_at
        if killed and not self.after:
            self.dead = True
            raise Killed
        try:
            result = call()
            if (failure := self.losing(name)) is not None:
                raise failure
            return result
        finally:
            self.moment()
            if killed:
                self.dead = True
                raise Killed


class Log:
    """What a logger is told, in `lines`: a real one for each of thousands of processes would take the tests' time."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append_keys(self, **_: Any) -> None:
        """Every line would have them."""

    def info(self, message: str, **extra: Any) -> None:
        """A line, as the methods below."""
        self.lines.append({"message": message, **extra})

    warning = error = info


class _Gated:
    """An object whose public methods pass the gate."""

    def __init__(self, gate: Callable[[], Gate], thing: Any, prefix: str) -> None:
        self._gate, self._thing, self._prefix = gate, thing, prefix

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._thing, name)
        if name == "get_paginator":
            return lambda operation: _Gated(self._gate, method(operation), self._prefix)
        return lambda *args, **kwargs: self._gate().pass_through(
            f"{self._prefix}.{name}", lambda: method(*args, **kwargs)
        )


class EmulatorTransport(Transport):
    """The emulator, asked without HTTP."""

    def __init__(self, imburse: Imburse, gate: Callable[[], Gate] | None = None) -> None:
        self._imburse = imburse
        self._gate = gate

    def send(
        self, method: str, url: str, headers: Mapping[str, str], *, deadline: Deadline, body: Any = None, **_: Any
    ) -> Answer:
        assert deadline.remaining_seconds() > 0
        parts = [unquote(part) for part in url.removeprefix(BASE_URL).split("/")[2:]]
        name = f"imburse.{method} {'keys' if parts[0] == 'tenant' else parts[1]}"

        def answer() -> Answer:
            try:
                return Answer(self._obey(method, parts, headers, body), "upstream-1", self._imburse.now())
            except Refusal as refusal:
                raise _error(refusal, self._imburse.now()) from None

        result: Answer = self._gate().pass_through(name, answer) if self._gate else answer()
        return result

    def _obey(self, method: str, parts: list[str], headers: Mapping[str, str], body: Any) -> Any:
        authorization = [headers["Authorization"]]
        imburse, scope = self._imburse, (headers.get("x-account-id"), headers.get("x-tenant-id"))
        match method, *parts:
            case "POST", "identity", "hmac":
                token = imburse.issue(imburse.authenticate(authorization, b""))
                return {"accessToken": token.value, "expires": token.expires}
            case "GET", "identity", "me":
                return imburse.me(authorization, *scope)
            case "POST", "tenant", tenant, "keys":
                return make_key(imburse.keys, imburse.bearer(authorization, *scope), tenant, body)
            case "GET", "tenant", tenant, "keys":
                return {"keys": tenant_keys(imburse.keys, imburse.bearer(authorization, *scope), tenant)}
            case "DELETE", "tenant", tenant, "keys", public_key:
                return delete_key(imburse.keys, imburse.bearer(authorization, *scope), tenant, public_key)
        raise AssertionError((method, parts))


def _error(refusal: Refusal, now: float) -> Exception:
    answer = UpstreamAnswer(refusal.status, refusal.code)
    if refusal.status == 401:
        error = Unauthorized("Imburse does not accept the key", upstream=answer)
        error.date_seconds = error.signed_at_seconds = now
        return error
    if refusal.status == 429:
        return UpstreamThrottled("Imburse is limiting our requests", upstream=answer)
    if refusal.status >= 500:
        return UpstreamUnavailable("Imburse has a fault", upstream=answer)
    return UpstreamRejected("Imburse refused the request", upstream=answer)


class World:
    """One credential, `sandbox/tenant-a`, whose key has a namesake that somebody made in the portal."""

    def __init__(self, **members: Any) -> None:
        self.grace_seconds = GRACE_SECONDS
        self.clock = Clock()
        self.gate = Gate()
        self.table = FakeTable()
        self.aws = FakeSecretVersions()
        self.imburse = Imburse(clock=self.clock)
        self.audit: list[dict[str, Any]] = []
        self.log = Log()
        self.original = secret(publicKey="original", name="settlement", roles=["tenant-admin"], note="kept", **members)
        self.add(str(A), self.original)
        self.innocent = self.made_in_the_portal()
        # The vending function: a process of its own, with its own cache of keys.
        self.store = SecretStore(self.aws, monotonic=self.clock)  # type: ignore[arg-type]
        self.exchange = Exchange(
            EmulatorTransport(self.imburse), clock=self.clock, monotonic=self.clock, sleep=self.clock.sleep
        )
        self.vend()

    def add(self, credential: str, members: dict[str, Any]) -> None:
        """A credential whose key Imburse knows."""
        self.aws.create(credential, members)
        self.imburse.keys.add(ImburseKey.from_json(members))

    def made_in_the_portal(self, name: str = "settlement") -> str:
        """A key of the same tenant and name that is none of ours; its public key."""
        public_key = f"portal-{secrets.token_hex(4)}"
        key = ImburseKey(public_key, secrets.token_bytes(32), "account-1", "tenant-a", ("tenant-admin",), name)
        self.imburse.keys.add(key)
        return public_key

    def process(self, *, deleting: bool = True) -> Rotating:
        """A fresh execution environment of the rotate function."""
        gate = lambda: self.gate  # noqa: E731 - each new process passes today's gate
        aws: Any = _Gated(gate, self.aws, "aws")
        transport = EmulatorTransport(self.imburse, gate)
        exchange = Exchange(transport, clock=self.clock, monotonic=self.clock, sleep=self.clock.sleep)
        table: Any = _Gated(gate, self.table, "table")
        return Rotating.assembled(
            aws,
            Vendor(aws, transport, exchange, HOSTS),
            table,
            grace_seconds=self.grace_seconds,
            delete_rotated_keys=deleting,
            audit=AuditTrail(lambda line: self.gate.pass_through("audit", lambda: self.audit.append(json.loads(line)))),
            metrics=VendingMetrics("rotate"),
            logger=self.log,  # type: ignore[arg-type]
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def step(self, step: str, token: str, *, process: Rotating | None = None) -> Any:
        """One step, as Secrets Manager asks for it."""
        event = {"Step": step, "SecretId": A.secret_name, "ClientRequestToken": token}
        return self._run(process or self.process(), event)

    def rotate(self, token: str, *, announced: bool = True) -> None:
        """All four steps."""
        if announced and token not in self.aws.versions[A.secret_name]:
            self.aws.announce(str(A), token)
        for step in STEPS:
            self.step(step, token)

    def sweep(self, *, deleting: bool = True) -> Any:
        """The hourly run."""
        return self._run(self.process(deleting=deleting), {})

    def pass_grace(self) -> None:
        """Time goes by until everything that was retired is due."""
        self.clock.now += self.grace_seconds + 1

    def vend(self) -> None:
        """What a caller does all the time: the key from the function's cache, an exchange, one use. Raises if it fails."""
        deadline = Deadline.after(60, self.clock)

        def reread(refused: Any) -> Any:
            return self.store.reread(A, refused), BASE_URL

        exchanged = self.exchange.access_token(self.store.get(A), BASE_URL, deadline=deadline, reread=reread)
        identity_me(EmulatorTransport(self.imburse), BASE_URL, exchanged.token.headers(), deadline=deadline)

    def gate_of(self, call: str) -> int:
        """The number of the first such call in a rotation of a world like this."""
        other = World()
        other.step("createSecret", token())
        return other.gate.calls.index(call) + 1

    def accepted(self) -> set[str]:
        """Every key that Imburse accepts for the tenant."""
        return {key.public_key for key in self.imburse.keys if key.tenant_id == "tenant-a"}

    def current(self) -> str:
        """The public key in use."""
        return str(self.aws.current(str(A))["publicKey"])

    def _run(self, process: Rotating, event: dict[str, Any]) -> Any:
        return process.run(event, request_id="request-1", deadline=Deadline.after(60, self.clock))


def token() -> str:
    """A ClientRequestToken."""
    return secrets.token_hex(16)
