"""Each fault of the emulator, and each thing that can be wrong with a secret: the probe names the cause rightly."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest

from imburse_auth import CredentialId
from imburse_auth import transport as transport_module
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport
from local.imburse import Imburse, ImburseKey
from local.imburse_faults import Fault, Kind
from local.serving import bind, in_background, serving
from tests.fakes import FakeSecretsManager, aws_error, secret
from vending.examine import Examiner, Finding

A = CredentialId("sandbox", "tenant-a")
ME, HMAC = "/v1/identity/me", "/v1/identity/hmac"


@dataclass
class Bench:
    imburse: Imburse
    url: str
    members: dict[str, Any] = field(default_factory=secret)
    aws: FakeSecretsManager = field(default_factory=FakeSecretsManager)

    def __post_init__(self) -> None:
        self.imburse.keys.add(ImburseKey.from_json(self.members))
        self.store(self.members)
        self.examiner = self.another_environment()

    def store(self, members: Any) -> None:
        self.aws.put(str(A), members)

    def another_environment(self) -> Examiner:
        hosts = Hosts({"sandbox": self.url})
        # Retries without their pauses; what they are is tests/unit/test_retry's.
        return Examiner(secrets_manager=self.aws, transport=Transport(), hosts=hosts, sleep=lambda _: None)  # type: ignore[arg-type]

    def examine(self, examiner: Examiner | None = None, credential: CredentialId = A) -> Finding:
        examiner = examiner or self.examiner
        return examiner.examine(credential, deadline=Deadline.after(20), correlation_id="probe-1")


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Imburse, str]]:
    imburse = Imburse()
    with in_background(serving(imburse.app(), bind(0))) as url:
        yield imburse, url


@pytest.fixture
def bench(running: tuple[Imburse, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(transport_module, "READ_TIMEOUT_SECONDS", 0.4)
    running[0].reset()
    yield Bench(*running)
    running[0].reset()


# Fault, the error's code (None: healthy), and what the cause says.
FAULTS: list[tuple[Fault, str | None, str]] = [
    (Fault("latency", path=HMAC, seconds=30), "upstream_unavailable", "does not answer in time"),
    (Fault("latency", path=ME, seconds=30), "upstream_unavailable", "does not answer in time"),
    (Fault("status", path=HMAC, status=401), "upstream_rejected", "does not accept the key (401 FAULT_401)"),
    (Fault("status", path=HMAC, status=403, error_code="ROLE_LACKS_ACCESS"), "upstream_rejected", "role lacks access (403 ROLE_LACKS_ACCESS)"),
    (Fault("status", path=ME, status=403), "upstream_rejected", "does not reach the account or tenant of the secret, or its role"),
    (Fault("status", path=ME, status=401), "upstream_rejected", "refuses the token that it has just given (401 FAULT_401)"),
    (Fault("status", path=HMAC, status=402), "upstream_rejected", "refuses what is asked (402 FAULT_402)"),
    (Fault("status", status=429), "upstream_throttled", "limiting our requests (429)"),
    (Fault("status", status=429, retry_after="120"), "upstream_throttled", "asks to wait 120 s"),
    (Fault("status", status=500), "upstream_unavailable", "has a fault: it answers 500"),
    (Fault("status", path=ME, status=503), "upstream_unavailable", "has a fault: it answers 503"),
    (Fault("redirect", path=HMAC), "upstream_protocol", "redirect, which is not followed"),
    (Fault("redirect", path=ME), "upstream_protocol", "redirect, which is not followed"),
    (Fault("drop", path=HMAC), "upstream_unavailable", "hangs up without an answer"),
    (Fault("drop", path=ME), "upstream_unavailable", "hangs up without an answer"),
    (Fault("drop_before", path=HMAC), "upstream_unavailable", "hangs up without an answer"),
    (Fault("drop_before", path=ME), "upstream_unavailable", "hangs up without an answer"),
    (Fault("drop_mid_body", path=HMAC), "upstream_unavailable", "answer was cut off"),
    (Fault("drop_mid_body", path=ME), "upstream_unavailable", "answer was cut off"),
    (Fault("drip", path=HMAC, seconds=0.05), "upstream_unavailable", "does not answer in time"),
    (Fault("drip", path=ME, seconds=0.05), "upstream_unavailable", "does not answer in time"),
    (Fault("garbage", path=HMAC), "upstream_protocol", "answer is not JSON"),
    (Fault("garbage", path=ME), "upstream_protocol", "answer is not JSON"),
    (Fault("oversized", path=HMAC), "upstream_protocol", "larger than 64 KiB"),
    (Fault("oversized", path=ME), "upstream_protocol", "larger than 64 KiB"),
    (Fault("clock", seconds=1000), None, "s ahead of ours: each new execution environment is refused once"),
    (Fault("clock", seconds=-1000), None, "s behind ours: each new"),
    (Fault("clock", seconds=100_000), "upstream_rejected", "s ahead of ours, more than can be corrected for"),
    (Fault("clock", seconds=-100_000), "upstream_rejected", "s behind ours, more than can be corrected for"),
    (Fault("same_token"), "upstream_protocol", "a token that it gave out before"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "code", "cause"), FAULTS, ids=[f"{f.kind}-{f.path or 'any'}-{c}" for f, _, c in FAULTS]
)
def test_a_fault_of_the_emulator_has_its_cause_named(bench: Bench, fault: Fault, code: str | None, cause: str) -> None:
    assert bench.examine().cause == "ok"
    bench.imburse.faults.add(fault)
    found = bench.examine()
    assert (found.state, found.code) == ("healthy" if code is None else "unhealthy", code)
    assert cause in found.cause
    if fault.kind == "clock":
        assert found.clock_skew_seconds == pytest.approx(fault.seconds, abs=3)
    if code is not None:
        assert found.step == ("identity" if fault.path == ME else "exchange")
    bench.imburse.faults.clear()
    assert bench.examine().cause == "ok"


def test_every_kind_of_fault_is_in_the_table() -> None:
    assert {fault.kind for fault, _, _ in FAULTS} == set(get_args(Kind))


def test_a_fault_that_passes_is_lived_through_as_vending_would(bench: Bench) -> None:
    for path in (HMAC, ME):
        for kind in ("drop", "drop_mid_body"):
            bench.imburse.faults.add(Fault(kind, path=path, times=1))
            assert bench.examine().state == "healthy", (kind, path)
    bench.imburse.faults.add(Fault("status", path=HMAC, status=503, times=2))
    found = bench.examine()
    assert (found.state, len(found.exchange_seconds)) == ("healthy", 3)


def test_a_token_that_somebody_else_has_used_is_named_by_another_environment_too(bench: Bench) -> None:
    bench.examine()
    bench.imburse.faults.add(Fault("same_token"))
    found = bench.examine(bench.another_environment())
    assert (found.code, found.step) == ("upstream_rejected", "identity")
    assert "refuses the token that it has just given (401 ACCESS_TOKEN_ALREADY_USED)" in found.cause


def test_a_host_where_nobody_listens_is_named(bench: Bench) -> None:
    with bind(0) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    bench.url = url
    found = bench.examine(bench.another_environment())
    assert (found.code, found.cause) == (
        "upstream_unavailable", "no connection to Imburse, or it hangs up without an answer",
    )  # fmt: skip


def other_pair() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


# What is done to the secret, the code, the step and the cause.
SECRETS: list[tuple[Callable[[Bench], object], str, str, str]] = [
    (lambda b: b.aws.secrets.clear(), "credential_not_found", "secret", "there is no secret"),
    (lambda b: b.store("{"), "credential_misconfigured", "secret", "the secret is no usable key: secret: "),
    (lambda b: b.store({}), "credential_misconfigured", "secret", "publicKey"),
    (lambda b: b.store(b.members | {"privateKey": "x"}), "credential_misconfigured", "secret", "privateKey: must be base64"),
    (lambda b: b.store(b.members | {"baseUrl": "https://evil.example"}), "credential_misconfigured", "secret", "the host is not allowed: baseUrl"),
    (lambda b: b.store(b.members | {"accountId": "account-2"}), "upstream_rejected", "identity", "does not reach the account or tenant of the secret, or its role may not ask (403 ACCOUNT_ID_HAS_NO_ACCESS)"),
    (lambda b: b.store(b.members | {"tenantId": "tenant-b"}), "upstream_rejected", "identity", "403 TENANT_ID_HAS_NO_ACCESS"),
    (lambda b: b.store(b.members | {"privateKey": other_pair()}), "upstream_rejected", "exchange", "the private key does not belong to the public key"),
    (lambda b: b.store(secret()), "upstream_rejected", "exchange", "Imburse does not know the key"),
    (lambda b: b.imburse.keys.revoke(b.members["publicKey"]), "upstream_rejected", "exchange", "the key is revoked"),
    (lambda b: setattr(b.aws, "failure", aws_error("AccessDeniedException")), "secrets_unavailable", "secret", "access to the secret or to its KMS key is denied"),
    (lambda b: setattr(b.aws, "failure", aws_error("DecryptionFailure")), "secrets_unavailable", "secret", "KMS does not decrypt the secret"),
    (lambda b: setattr(b.aws, "failure", aws_error("InternalServiceError", 500)), "secrets_unavailable", "secret", "Secrets Manager has a fault"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "code", "step", "cause"), SECRETS, ids=[cause for *_, cause in SECRETS])
def test_what_is_wrong_with_a_secret_or_its_key_is_named(
    bench: Bench, spoil: Callable[[Bench], object], code: str, step: str, cause: str
) -> None:
    spoil(bench)
    found = bench.examine()
    assert (found.state, found.code, found.step) == ("unhealthy", code, step)
    assert cause in found.cause, found.cause
    assert bench.members["privateKey"] not in repr(found)


def test_an_environment_without_a_host_is_named(bench: Bench) -> None:
    bench.aws.put("acme/tenant-a", bench.members)
    found = bench.examine(credential=CredentialId("acme", "tenant-a"))
    assert (found.code, found.cause[:24]) == ("credential_misconfigured", "the host is not allowed:")


@pytest.mark.parametrize("field", ["accountId", "tenantId"])
def test_an_imburse_that_overlooks_the_headers_is_seen_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setattr("local.imburse.require_scope", lambda *_: None)
    bench.store(bench.members | {field: "another"})
    found = bench.examine()
    assert (found.code, found.step) == ("credential_misconfigured", "identity")
    assert found.cause.startswith(f"the key speaks for another account or tenant: {field}: ")


def test_an_account_key_needs_no_tenant(bench: Bench) -> None:
    account = secret(tenantId=None)
    bench.imburse.keys.add(ImburseKey.from_json(account))
    bench.store(account)
    assert bench.examine().cause == "ok"
