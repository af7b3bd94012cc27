"""A stand-in for the DynamoDB table: `vending.table.Table`'s operations in memory, each atomic under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vending.table import Item, Table


class FakeTable(Table):
    """The items by key, in `items`.

    `failure` is raised instead of every operation while it is set; `before` is called with the operation's name first, outside the
    lock, so it may raise, wait, or use the table itself. `calls` holds the names of the operations in their order.
    """

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.failure: Exception | None = None
        self.before: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []
        self._lock = threading.RLock()

    def partition(self, pk: str) -> list[Item]:
        """What stands under a partition key, in the order of the sort keys; neither counted nor failing."""
        with self._lock:
            return [dict(item) for key, item in sorted(self.items.items()) if key[0] == pk]

    def get(self, pk: str, sk: str) -> Item | None:
        self._begin("get")
        with self._lock:
            item = self.items.get((pk, sk))
            return None if item is None else dict(item)

    def query(
        self, pk: str, *, from_sk: str = "", limit: int | None = None, attributes: Sequence[str] | None = None
    ) -> list[Item]:
        self._begin("query")
        found = [item for item in self.partition(pk) if str(item["sk"]) >= from_sk][:limit]
        if attributes is None:
            return found
        return [{name: item[name] for name in attributes if name in item} for item in found]

    def put(self, item: Item) -> None:
        self._begin("put")
        _check(item)
        with self._lock:
            self.items[_key(item)] = dict(item)

    def put_new(self, item: Item) -> bool:
        self._begin("put_new")
        _check(item)
        with self._lock:
            if _key(item) in self.items:
                return False
            self.items[_key(item)] = dict(item)
            return True

    def take(self, pk: str, sk: str) -> Item | None:
        self._begin("take")
        with self._lock:
            return self.items.pop((pk, sk), None)

    def add(self, pk: str, sk: str, amount: int, *, ttl: int, at_most: int | None = None) -> int | None:
        self._begin("add")
        with self._lock:
            count = int(self.items.get((pk, sk), {}).get("n", 0)) + amount
            if at_most is not None and count > at_most:
                return None
            self._change(pk, sk, n=count, ttl=ttl)
            return count

    def lease(self, pk: str, sk: str, *, now_ms: int, until_ms: int, ttl: int) -> int | None:
        self._begin("lease")
        with self._lock:
            item = self.items.get((pk, sk), {})
            if "until_ms" in item and int(item["until_ms"]) > now_ms:
                return None
            fence = int(item.get("fence", 0)) + 1
            self._change(pk, sk, fence=fence, until_ms=until_ms, ttl=ttl)
            return fence

    def hold(self, pk: str, sk: str, *, fence: int, now_ms: int, until_ms: int) -> bool:
        self._begin("hold")
        with self._lock:
            item = self.items.get((pk, sk))
            if item is None or item.get("fence") != fence or int(item.get("until_ms", 0)) <= now_ms:
                return False
            self._change(pk, sk, until_ms=until_ms)
            return True

    def delete(self, pk: str, sk: str) -> None:
        self._begin("delete")
        with self._lock:
            self.items.pop((pk, sk), None)

    def _begin(self, operation: str) -> None:
        self.calls.append(operation)
        self.before(operation)
        if self.failure is not None:
            raise self.failure

    def _change(self, pk: str, sk: str, **changes: int) -> None:
        item = self.items.setdefault((pk, sk), {"pk": pk, "sk": sk})
        item.update(changes)


def _check(item: Item) -> None:
    # What DynamoDB would refuse, or Table would write as something else.
    assert all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in item.values()), item.keys()


def _key(item: Item) -> tuple[str, str]:
    return str(item["pk"]), str(item["sk"])
