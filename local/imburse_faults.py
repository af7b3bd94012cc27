"""Faults that the Imburse emulator plays on demand, so that a client can be seen to survive them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from local.imburse_errors import InvalidDocument

Kind = Literal[
    "latency",  # answer `seconds` late
    "status",  # answer `status` (with `retryAfter`, if given) and no token
    "redirect",  # answer `status` (default 307) with Location `location`
    "drop",  # do the work, then close the connection instead of answering
    "drop_before",  # close the connection without doing the work
    "drop_mid_body",  # do the work, then close the connection halfway through the answer's body
    "drip",  # do the work, then send the answer's body a byte at a time, `seconds` apart
    "garbage",  # do the work, then answer 200 with a body that is not JSON
    "oversized",  # do the work, then answer with a valid body padded to `bytes` (default 1 MiB)
    "same_token",  # answer the token issued last for this key once more
    "clock",  # keep time `seconds` away from the real one, in the Date header and in every judgement
]
_KINDS: tuple[Kind, ...] = get_args(Kind)
_SPOILING = tuple(kind for kind in _KINDS if kind not in ("latency", "same_token", "clock"))

_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "kind": str,
    "path": str,
    "method": str,
    "times": int,
    "seconds": (int, float),
    "status": int,
    "retryAfter": (int, str),
    "errorCode": str,
    "location": str,
    "bytes": int,
}
_NEEDS = {"latency": "seconds", "clock": "seconds", "drip": "seconds", "status": "status"}


@dataclass(frozen=True)
class Fault:
    """One fault: for the next ``times`` requests to ``path`` by ``method``; None means until cleared, any path, any method.

    A path that ends with ``*`` stands for all that begin so.

    ``clock`` takes no ``times`` and no ``path``: a clock is wrong for everybody until it is put right.
    """

    kind: Kind
    path: str | None = None
    times: int | None = None
    method: str | None = None
    seconds: float = 0.0
    status: int = 307
    retry_after: str | None = None
    error_code: str | None = None
    location: str = "/v1/identity/elsewhere"
    size_bytes: int = 1024 * 1024

    @classmethod
    def from_json(cls, document: object) -> Fault:
        """Read the body of ``POST /control/faults``. Raises InvalidDocument, which names the field."""
        if not isinstance(document, dict):
            raise InvalidDocument("the body must be an object")
        given: dict[str, Any] = document
        for name, value in given.items():
            if name not in _FIELDS:
                raise InvalidDocument(f"{name} is not a field of a fault")
            if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
                raise InvalidDocument(f"{name} has the wrong type")
        kind = given.get("kind")
        if kind not in _KINDS:
            raise InvalidDocument(f"kind must be one of {', '.join(_KINDS)}")
        if _NEEDS.get(kind, "kind") not in given:
            raise InvalidDocument(f"{kind} needs {_NEEDS[kind]}")
        if given.get("times", 1) < 1 or not 200 <= given.get("status", 200) <= 599:
            raise InvalidDocument("times must be at least 1, status from 200 to 599")
        names = {"retryAfter": "retry_after", "errorCode": "error_code", "bytes": "size_bytes"}
        values = {names.get(name, name): value for name, value in given.items()}
        if "retry_after" in values:
            values["retry_after"] = str(values["retry_after"])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Answer the fault for ``GET /control/faults``, with the requests left in ``times``."""
        shown = {"kind": self.kind, "path": self.path, "times": self.times, "seconds": self.seconds}
        return shown | ({} if self.method is None else {"method": self.method})

    def meets(self, path: str, method: str) -> bool:
        """Whether a request is one of those that it is for."""
        if self.method not in (None, method):
            return False
        if self.path is not None and self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return self.path in (None, path)


@dataclass(frozen=True)
class Turn:
    """What befalls one request."""

    latency_seconds: float = 0.0
    answer: Fault | None = None
    same_token: bool = False

    @property
    def refuses(self) -> bool:
        """Whether the request is turned away before it has any effect, rather than its answer lost."""
        return self.answer is not None and self.answer.kind in ("status", "redirect", "drop_before")


class FaultBox:
    """The faults in force. Those that spoil an answer take turns in the order they were added.

    `befell` counts the requests that each kind met, since the start.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self.befell: Counter[Kind] = Counter()

    def add(self, fault: Fault) -> None:
        """Put a fault in force."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Put everything right."""
        self._faults.clear()

    def active(self) -> tuple[Fault, ...]:
        """Answer the faults in force."""
        return tuple(self._faults)

    @property
    def clock_shift_seconds(self) -> float:
        """How far the emulator's clock is off."""
        return sum(fault.seconds for fault in self._faults if fault.kind == "clock")

    def take_turn(self, path: str, method: str = "POST") -> Turn:
        """Answer what befalls the next request to ``path``, and count it off."""
        late = self._take(path, method, ("latency",))
        same = self._take(path, method, ("same_token",))
        spoilt = self._take(path, method, _SPOILING)
        return Turn(late.seconds if late else 0.0, spoilt, same is not None)

    def _take(self, path: str, method: str, kinds: tuple[Kind, ...]) -> Fault | None:
        for index, fault in enumerate(self._faults):
            if fault.kind in kinds and fault.meets(path, method):
                if fault.times == 1:
                    del self._faults[index]
                elif fault.times is not None:
                    self._faults[index] = replace(fault, times=fault.times - 1)
                self.befell[fault.kind] += 1
                return fault
        return None
