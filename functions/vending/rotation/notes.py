"""What rotation keeps in the table between its calls, so that a run that was killed can be made good by the next. No secret.

| item | pk | sk | attributes |
|---|---|---|---|
| intent | `rotation` | `intent#<credential>` | name, account, tenant; before and made (as JSON), posts, posted_at, instead_of |
| retired key | `rotation` | `retired#<credential>#<public key>` | credential, public_key, account, tenant; retired_at |

Times are in whole seconds since the epoch. Neither has a `ttl`: they go when what they stand for is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from imburse_auth.credential import CredentialId
from vending.table import Item, Table

PK = "rotation"
_RETIRED, _INTENT = "retired#", "intent#"


@dataclass(frozen=True)
class Intent:
    """A key of this name is about to be made: written before Imburse is asked.

    `before` are the keys that the tenant had then, which are nobody's orphans. `posts` is how many keys may have been made
    under it, beyond those that were deleted again, and `posted_at` when the last was asked for. `instead_of` is the version
    that was current then, whose place the key is to take; empty while none was asked for. `made` are those of them whose answer
    came: each that is stored is among them, so a key that somebody stores by hand is not taken for one of ours.
    """

    credential: CredentialId
    name: str
    account_id: str
    tenant_id: str
    before: frozenset[str]
    posts: int
    posted_at: int
    instead_of: str = ""
    made: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Retired:
    """A key that was replaced at `retired_at`, and that functions may hold for a while yet."""

    credential: CredentialId
    public_key: str
    account_id: str
    tenant_id: str
    retired_at: int


class Notes:
    """The two kinds of notes. Everything raises TableUnavailable."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def intent(self, credential: CredentialId) -> Intent | None:
        """What is about to be made for a credential, if anything."""
        item = self._table.get(PK, f"{_INTENT}{credential}")
        return None if item is None else _intent(item)

    def intents(self) -> list[Intent]:
        """All of them."""
        return [_intent(item) for item in self._starting(_INTENT)]

    def intend(self, intent: Intent) -> None:
        """Write an intent in the place of the credential's last."""
        self._table.put(
            {
                "pk": PK,
                "sk": f"{_INTENT}{intent.credential}",
                "name": intent.name,
                "account": intent.account_id,
                "tenant": intent.tenant_id,
                "before": json.dumps(sorted(intent.before)),
                "posts": intent.posts,
                "posted_at": intent.posted_at,
                "instead_of": intent.instead_of,
                "made": json.dumps(sorted(intent.made)),
            }
        )

    def fulfil(self, credential: CredentialId) -> None:
        """Drop the credential's intent."""
        self._table.delete(PK, f"{_INTENT}{credential}")

    def retire(self, retired: Retired) -> None:
        """Write a retired key down, or that its grace begins anew."""
        self._table.put(
            {
                "pk": PK,
                "sk": _retired_sk(retired.credential, retired.public_key),
                "credential": str(retired.credential),
                "public_key": retired.public_key,
                "account": retired.account_id,
                "tenant": retired.tenant_id,
                "retired_at": retired.retired_at,
            }
        )

    def retired(self) -> list[Retired]:
        """Every key that is still to be deleted."""
        return [_retired(item) for item in self._starting(_RETIRED)]

    def still_retired(self, retired: Retired) -> Retired | None:
        """The note as it is now, or None if it is gone."""
        item = self._table.get(PK, _retired_sk(retired.credential, retired.public_key))
        return None if item is None else _retired(item)

    def forget(self, retired: Retired) -> None:
        """Drop a retired key: it is gone."""
        self._table.delete(PK, _retired_sk(retired.credential, retired.public_key))

    def _starting(self, prefix: str) -> Iterable[Item]:
        return [item for item in self._table.query(PK, from_sk=prefix) if str(item["sk"]).startswith(prefix)]


def _retired_sk(credential: CredentialId, public_key: str) -> str:
    return f"{_RETIRED}{credential}#{public_key}"


def _intent(item: Item) -> Intent:
    return Intent(
        credential=CredentialId.parse(str(item["sk"]).removeprefix(_INTENT)),
        name=str(item["name"]),
        account_id=str(item["account"]),
        tenant_id=str(item["tenant"]),
        before=frozenset(json.loads(str(item["before"]))),
        posts=int(item["posts"]),
        posted_at=int(item["posted_at"]),
        instead_of=str(item["instead_of"]),
        made=frozenset(json.loads(str(item["made"]))),
    )


def _retired(item: Item) -> Retired:
    return Retired(
        credential=CredentialId.parse(item["credential"]),
        public_key=str(item["public_key"]),
        account_id=str(item["account"]),
        tenant_id=str(item["tenant"]),
        retired_at=int(item["retired_at"]),
    )
