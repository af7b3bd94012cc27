"""Which function a caller of Lambda means: names, ARNs and qualifiers.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html (FunctionName, Qualifier).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from local.lambda_types import LATEST
from local.template import PUBLISHED_VERSION, FunctionSpec

_REFERENCE = re.compile(
    r"(arn:aws:lambda:(?P<region>[a-z0-9-]+):)?((?P<account>\d{12}):)?(function:)?"
    r"(?P<name>[A-Za-z0-9_-]{1,64})(:(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)


class UnknownFunction(Exception):
    """There is no such function, version or alias."""


class InvalidReferenceError(Exception):
    """The function's name is not one, or names another qualifier than the request does."""


@dataclass(frozen=True)
class Target:
    """A function as it was called: the ARN carries the qualifier that was named, `version` is what runs."""

    spec: FunctionSpec
    arn: str
    version: str


class Directory:
    """Finds functions by name, partial or full ARN, and also by logical id or handler module (`vend`), as sam local does."""

    def __init__(self, functions: Iterable[FunctionSpec], *, region: str, account_id: str) -> None:
        self.functions = tuple(functions)
        self._region = region
        self._account_id = account_id
        modules = Counter(_module(spec) for spec in self.functions)
        self._by_name = {_module(spec): spec for spec in self.functions if modules[_module(spec)] == 1}
        self._by_name |= {spec.logical_id: spec for spec in self.functions}
        self._by_name |= {spec.name: spec for spec in self.functions}

    def arn(self, name: str) -> str:
        return f"arn:aws:lambda:{self._region}:{self._account_id}:function:{name}"

    def find(self, reference: str, qualifier: str | None = None) -> Target:
        """The function that is meant. Raises UnknownFunction, InvalidReferenceError."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise InvalidReferenceError(f"Value {reference!r} at 'functionName' is not a function name or ARN")
        if match["qualifier"] and qualifier and match["qualifier"] != qualifier:
            raise InvalidReferenceError(
                "The derived qualifier from the function name does not match the specified qualifier."
            )
        qualifier = qualifier or match["qualifier"]
        spec = self._by_name.get(match["name"])
        arn = self.arn(spec.name if spec else match["name"]) + (f":{qualifier}" if qualifier else "")
        elsewhere = match["region"] not in {None, self._region} or match["account"] not in {None, self._account_id}
        if spec is None or elsewhere or qualifier not in {None, LATEST, PUBLISHED_VERSION, *spec.aliases}:
            raise UnknownFunction(f"Function not found: {reference if elsewhere else arn}")
        return Target(spec, arn, LATEST if qualifier in {None, LATEST} else PUBLISHED_VERSION)


def _module(spec: FunctionSpec) -> str:
    return spec.handler.rpartition(".")[0].rpartition(".")[2]
