"""Sees every call of botocore's clients: how many, how many bytes, and how many of DynamoDB's request units."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from tests.bench.cost_usage import read_units, write_units

_ASKED = b', "ReturnConsumedCapacity": "TOTAL"'


class Meter:
    """Adds up, on any thread."""

    def __init__(self) -> None:
        self.usage: dict[str, float] = {}
        self._lock = threading.Lock()
        self._sending = threading.local()

    def add(self, meter: str, amount: float) -> None:
        """So much more."""
        with self._lock:
            self.usage[meter] = self.usage.get(meter, 0.0) + amount

    def watch(self, client: Any) -> Any:
        """Count what this client sends and gets from now on."""
        service = client.meta.service_model.service_name
        client.meta.events.register(f"before-send.{service}", self._sends)
        client.meta.events.register(f"before-parse.{service}", self._gets)
        if service == "dynamodb":
            client.meta.events.register("provide-client-params.dynamodb", _asks_for_units)
        return client

    def _sends(self, request: Any, event_name: str, **_: object) -> None:
        body = request.body or b""
        self._sending.body = body
        self.add("call " + ".".join(event_name.split(".")[1:3]), 1)
        line = len(f"{request.method} {request.url} HTTP/1.1\r\n")
        self.add("sent", line + header_bytes(request.headers) + len(body) - (len(_ASKED) if _ASKED in body else 0))

    def _gets(self, response_dict: Mapping[str, Any], operation_model: Any, **_: object) -> None:
        body = response_dict["body"]
        self.add("received", header_bytes(response_dict["headers"]) + len(body))
        if operation_model.service_model.service_name != "dynamodb":
            return
        asked, answer = json.loads(self._sending.body), json.loads(body)
        used = answer.get("ConsumedCapacity")
        if used is not None:
            self.add("received", 1 - len(json.dumps({"ConsumedCapacity": used}, separators=(",", ":"))))
        kind, least = (
            ("read", read_units(0)) if operation_model.name in ("GetItem", "Query") else ("write", write_units(0))
        )
        # Two things that AWS charges for and dynalite says nothing of: a read that finds nothing, and a condition that fails.
        self.add(f"{kind} {_partition(asked)}", max(least, used["CapacityUnits"] if used else 0))


def _asks_for_units(params: Mapping[str, Any], **_: object) -> dict[str, Any]:
    return {**params, "ReturnConsumedCapacity": "TOTAL"}


def header_bytes(headers: Mapping[str, Any]) -> int:
    """As they are on the wire of HTTP/1.1, with the empty line."""
    return (
        sum(len(name) + len(value if isinstance(value, bytes) else str(value)) + 4 for name, value in headers.items())
        + 2
    )


def _partition(asked: Mapping[str, Any]) -> str:
    """The first part of the partition key that a request is about."""
    key = asked.get("Key") or asked.get("Item")
    pk: str = (key["pk"] if key else asked["ExpressionAttributeValues"][":pk"])["S"]
    return pk.split("#")[0]
