"""A pool on a fake table, for the tests of what a claim does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from imburse_auth import AccessToken, ApiKey, CredentialId
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Clock, secret
from vending.supply.pool import Pool, Pooled

TENANT_A = CredentialId("sandbox", "tenant-a")
TENANT_B = CredentialId("sandbox", "tenant-b")


@dataclass
class Bench:
    """A pool on a fake table, with a clock that is told the time and lots that are always the first."""

    clock: Clock = field(default_factory=Clock)
    table: FakeTable = field(default_factory=FakeTable)
    wasted: int = 0

    def __post_init__(self) -> None:
        self.members = secret()
        self.key = ApiKey.from_secret(json.dumps(self.members))
        self.monotonic = Clock(0.0)
        self.pool = Pool(self.table, clock=self.clock, monotonic=self.monotonic, choose=lambda _: 0)

    def token(self, value: str, seconds: float = 1800, **changes: Any) -> Pooled:
        token = AccessToken(value, int(self.clock() + seconds), "account-1", changes.pop("tenant", "tenant-a"))
        return Pooled(
            token, **{"base_url": BASE_URL, "public_key": self.key.public_key, "correlation_id": "c-1", **changes}
        )

    def fill(self, *pooled: Pooled, credential: CredentialId = TENANT_A) -> None:
        for one in pooled:
            self.pool.put(credential, one)

    def claim(self, least_seconds: int = 300, **options: Any) -> Pooled | None:
        return self.pool.claim(TENANT_A, self.key, least_seconds=least_seconds, on_wasted=self.waste, **options)

    def waste(self) -> None:
        self.wasted += 1

    def left(self) -> int:
        return len(self.table.partition(f"pool#{TENANT_A}"))
