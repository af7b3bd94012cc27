"""CloudFormation's intrinsic functions, as far as a template's values can be known without deploying it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_SUB_VARIABLE = re.compile(r"\$\{(!?)([^}]*)\}")


class UnresolvedError(Exception):
    """A value that only a deployment knows, or an intrinsic that is not written as CloudFormation wants it."""


class NoValue:
    """What `!Ref AWS::NoValue` gives: the property is left out."""


class Resolver:
    """Resolves intrinsic functions against parameters, conditions, mappings and the resources whose names are known.

    `attributes` answers `Ref` (attribute name "Ref") and `GetAtt`, by (logical id, attribute); None where it is not known.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        conditions: Mapping[str, Any],
        mappings: Mapping[str, Any],
        attributes: Callable[[str, str], str | None],
    ) -> None:
        self._parameters = parameters
        self._conditions = conditions
        self._mappings = mappings
        self._attributes = attributes
        self._functions: Mapping[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Condition": self.condition,
            "Fn::Sub": self._sub,
            "Fn::GetAtt": self._get_att,
            "Fn::If": self._if,
            "Fn::Equals": lambda pair: self.resolve(pair[0]) == self.resolve(pair[1]),
            "Fn::Not": lambda one: not self.resolve(one[0]),
            "Fn::And": lambda terms: all(self.resolve(term) for term in terms),
            "Fn::Or": lambda terms: any(self.resolve(term) for term in terms),
            "Fn::Join": lambda args: str(self.resolve(args[0])).join(map(str, self.resolve(args[1]))),
            "Fn::Split": lambda args: str(self.resolve(args[1])).split(str(self.resolve(args[0]))),
            "Fn::Select": lambda args: self.resolve(args[1])[int(self.resolve(args[0]))],
            "Fn::FindInMap": self._find_in_map,
        }

    def resolve(self, value: Any) -> Any:  # noqa: ANN401 - a template holds any JSON
        """The value with every intrinsic in it replaced. Raises UnresolvedError."""
        if isinstance(value, list):
            items = [self.resolve(item) for item in value]
            return [item for item in items if item is not NoValue]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), *_ = value.items()
            if name.startswith("Fn::") or name in self._functions:
                return self._call(name, argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NoValue}

    def condition(self, name: str) -> bool:
        """The truth of a condition of the template. Raises UnresolvedError."""
        if name not in self._conditions:
            raise UnresolvedError(f"there is no condition {name!r}")
        return bool(self.resolve(self._conditions[name]))

    def _call(self, name: str, argument: Any) -> Any:  # noqa: ANN401
        function = self._functions.get(name)
        if function is None:
            raise UnresolvedError(f"{name} cannot be resolved on one machine")
        try:
            return function(argument)
        except (LookupError, TypeError, ValueError) as exc:
            raise UnresolvedError(f"{name} has an argument that does not fit: {argument!r}") from exc

    def _ref(self, name: str) -> Any:  # noqa: ANN401
        if name == "AWS::NoValue":
            return NoValue
        if name in self._parameters:
            return self._parameters[name]
        return self._attribute(name, "Ref")

    def _get_att(self, argument: str | list[str]) -> str:
        logical_id, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        return self._attribute(logical_id, attribute)

    def _attribute(self, logical_id: str, attribute: str) -> str:
        known = self._attributes(logical_id, attribute)
        if known is None:
            what = f"!Ref {logical_id}" if attribute == "Ref" else f"!GetAtt {logical_id}.{attribute}"
            raise UnresolvedError(
                f"{what} has no value here: known only once deployed, or a parameter that was not given"
            )
        return known

    def _sub(self, argument: str | list[Any]) -> str:
        text, variables = (argument, {}) if isinstance(argument, str) else argument

        def replace(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:
                return "${" + name + "}"
            if name in variables:
                return str(self.resolve(variables[name]))
            return str(self._get_att(name) if "." in name else self._ref(name))

        return _SUB_VARIABLE.sub(replace, text)

    def _if(self, argument: list[Any]) -> Any:  # noqa: ANN401
        name, when_true, when_false = argument
        return self.resolve(when_true if self.condition(name) else when_false)

    def _find_in_map(self, argument: list[Any]) -> Any:  # noqa: ANN401
        name, first, second = (self.resolve(item) for item in argument[:3])
        return self._mappings[name][first][second]
