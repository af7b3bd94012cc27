"""Reads template.yaml into what the local stack runs, so that the template is what runs.

SAM's own translator (aws-sam-translator, the code behind the AWS::Serverless transform) merges Globals and expands
AutoPublishAlias, Api and ScheduleV2 events; what is left to do here is plain CloudFormation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.template_intrinsics import NoValue, Resolver, UnresolvedError
from local.template_source import TemplateError, load, parameter_values, translate

__all__ = [
    "Application",
    "DashboardSpec",
    "FunctionSpec",
    "Route",
    "ScheduleSpec",
    "TableSpec",
    "TemplateError",
    "read_application",
]

PUBLISHED_VERSION = "1"
"""The number of the one version that every alias points at."""

_DEFAULT_TIMEOUT_SECONDS = 3
_DEFAULT_MEMORY_MB = 128
_INTEGRATION = re.compile(r"/functions/arn:[^/]*:function:(?P<name>[^:/]+):(?P<alias>[^:/]+)/invocations$")
_ALIAS_ARN = re.compile(r"^arn:[^/]*:function:(?P<name>[^:/]+):(?P<alias>[^:/]+)$")


@dataclass(frozen=True)
class Route:
    """One API Gateway method and the function alias behind it; `function` is a logical id."""

    method: str
    path: str
    function: str
    alias: str


@dataclass(frozen=True)
class FunctionSpec:
    """One Lambda function as the template describes it, every intrinsic resolved."""

    logical_id: str
    name: str
    handler: str
    timeout_seconds: int
    memory_mb: int
    environment: Mapping[str, str]
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class ScheduleSpec:
    """One schedule, fired by hand; `input` is the JSON text its function gets, `function` a logical id."""

    name: str
    function: str
    alias: str
    input: str


@dataclass(frozen=True)
class TableSpec:
    """One DynamoDB table: `attributes` and `keys` as CreateTable takes them, `ttl` the attribute with an item's end."""

    name: str
    attributes: tuple[Mapping[str, str], ...]
    keys: tuple[Mapping[str, str], ...]
    ttl: str | None


@dataclass(frozen=True)
class DashboardSpec:
    """One CloudWatch dashboard: its name, and its body as JSON text."""

    name: str
    body: str


@dataclass(frozen=True)
class Application:
    """What the template deploys, as far as one machine can run it; functions by logical id."""

    functions: Mapping[str, FunctionSpec]
    routes: tuple[Route, ...]
    schedules: tuple[ScheduleSpec, ...]
    tables: tuple[TableSpec, ...] = ()
    dashboards: tuple[DashboardSpec, ...] = ()


def read_application(
    path: Path, parameters: Mapping[str, str], *, stack_name: str, region: str, account_id: str
) -> Application:
    """Reads a SAM template; `parameters` override the template's defaults.

    Raises TemplateError when the template cannot be read, a parameter is not one of its own, or something that the
    functions need is known only once deployed.
    """
    source = load(path)
    declared = source.get("Parameters") or {}
    if unknown := sorted(set(parameters) - set(declared)):
        raise TemplateError(f"{path}: there is no parameter {', '.join(unknown)}")
    values = parameter_values(source, parameters)
    template = translate(source, parameters, region)
    pseudo = {
        "AWS::AccountId": account_id,
        "AWS::Partition": "aws",
        "AWS::Region": region,
        "AWS::StackName": stack_name,
        "AWS::URLSuffix": "amazonaws.com",
    }
    return _Reader(template, values | pseudo).application()


class _Reader:
    """Reads one translated template."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        self._resolver = Resolver(
            parameters, template.get("Conditions") or {}, template.get("Mappings") or {}, self._attribute
        )
        self._stack_name = parameters["AWS::StackName"]
        self._arn_prefix = f"arn:aws:lambda:{parameters['AWS::Region']}:{parameters['AWS::AccountId']}:function:"
        self._resources = {
            logical_id: resource
            for logical_id, resource in template["Resources"].items()
            if "Condition" not in resource or self._resolver.condition(resource["Condition"])
        }

    def application(self) -> Application:
        functions = {logical_id: self._function(logical_id) for logical_id in self._of_type("AWS::Lambda::Function")}
        return Application(
            functions,
            tuple(self._routes()),
            tuple(self._schedules()),
            tuple(self._tables()),
            tuple(self._dashboards()),
        )

    def _of_type(self, kind: str) -> list[str]:
        return [logical_id for logical_id, resource in self._resources.items() if resource["Type"] == kind]

    def _property(self, logical_id: str, name: str, default: Any = None) -> Any:  # noqa: ANN401
        value = self._resolve(self._resources[logical_id].get("Properties", {}).get(name, default), logical_id, name)
        return default if value is NoValue else value

    def _number(self, logical_id: str, name: str, default: int) -> int:
        try:
            return int(self._property(logical_id, name, default))
        except (TypeError, ValueError) as exc:
            raise TemplateError(f"{logical_id}: {name}: must be a number") from exc

    def _resolve(self, value: Any, logical_id: str, where: str) -> Any:  # noqa: ANN401
        try:
            return self._resolver.resolve(value)
        except UnresolvedError as exc:
            raise TemplateError(f"{logical_id}: {where}: {exc}") from exc

    def _function_name(self, logical_id: str) -> str:
        return str(self._property(logical_id, "FunctionName", f"{self._stack_name}-{logical_id}"))

    def _attribute(self, logical_id: str, attribute: str) -> str | None:
        """What `Ref` and `GetAtt` of a function, a version, an alias or a table give, as AWS would."""
        kind = self._resources.get(logical_id, {}).get("Type")
        if kind == "AWS::Lambda::Function":
            name = self._function_name(logical_id)
            return {"Ref": name, "Arn": self._arn_prefix + name}.get(attribute)
        if kind == "AWS::Lambda::Version":
            arn = f"{self._function_arn(logical_id)}:{PUBLISHED_VERSION}"
            return {"Ref": arn, "FunctionArn": arn, "Version": PUBLISHED_VERSION}.get(attribute)
        if kind == "AWS::Lambda::Alias":
            arn = f"{self._function_arn(logical_id)}:{self._property(logical_id, 'Name')}"
            return {"Ref": arn, "AliasArn": arn}.get(attribute)
        if kind == "AWS::DynamoDB::Table":
            return {"Ref": self._table_name(logical_id)}.get(attribute)
        return None

    def _table_name(self, logical_id: str) -> str:
        return str(self._property(logical_id, "TableName", f"{self._stack_name}-{logical_id}"))

    def _function_arn(self, logical_id: str) -> str:
        name = str(self._property(logical_id, "FunctionName"))
        return name if name.startswith("arn:") else self._arn_prefix + name

    def _function(self, logical_id: str) -> FunctionSpec:
        handler = self._property(logical_id, "Handler")
        if not isinstance(handler, str):
            raise TemplateError(f"{logical_id}: Handler: missing")
        variables = self._resources[logical_id]["Properties"].get("Environment", {}).get("Variables", {})
        environment = {
            name: self._resolve(value, logical_id, f"Environment.Variables.{name}") for name, value in variables.items()
        }
        return FunctionSpec(
            logical_id=logical_id,
            name=self._function_name(logical_id),
            handler=handler,
            timeout_seconds=self._number(logical_id, "Timeout", _DEFAULT_TIMEOUT_SECONDS),
            memory_mb=self._number(logical_id, "MemorySize", _DEFAULT_MEMORY_MB),
            environment={name: str(value) for name, value in environment.items() if value is not NoValue},
            aliases=tuple(
                str(self._property(alias, "Name"))
                for alias in self._of_type("AWS::Lambda::Alias")
                if self._function_arn(alias) == self._arn_prefix + self._function_name(logical_id)
            ),
        )

    def _routes(self) -> Iterator[Route]:
        for api in self._of_type("AWS::ApiGateway::RestApi"):
            paths = self._resources[api]["Properties"].get("Body", {}).get("paths", {})
            for path, methods in paths.items():
                for method, operation in methods.items():
                    integration = operation.get("x-amazon-apigateway-integration", {})
                    if integration.get("type", "").lower() == "aws_proxy":
                        where = f"{method.upper()} {path}"
                        uri = self._resolve(integration.get("uri"), api, where)
                        function, alias = self._target(_INTEGRATION.search(str(uri)), api, where)
                        name = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
                        yield Route(name, path, function, alias)

    def _schedules(self) -> Iterator[ScheduleSpec]:
        for schedule in self._of_type("AWS::Scheduler::Schedule"):
            target = self._resources[schedule]["Properties"]["Target"]
            arn = self._resolve(target.get("Arn"), schedule, "Target.Arn")
            function, alias = self._target(_ALIAS_ARN.match(str(arn)), schedule, "Target.Arn")
            text = self._resolve(target.get("Input", "{}"), schedule, "Target.Input")
            yield ScheduleSpec(str(self._property(schedule, "Name", schedule)), function, alias, str(text))

    def _tables(self) -> Iterator[TableSpec]:
        for table in self._of_type("AWS::DynamoDB::Table"):
            ttl = self._property(table, "TimeToLiveSpecification", {})
            yield TableSpec(
                self._table_name(table),
                tuple(self._property(table, "AttributeDefinitions", [])),
                tuple(self._property(table, "KeySchema", [])),
                ttl.get("AttributeName") if str(ttl.get("Enabled")).lower() == "true" else None,
            )

    def _dashboards(self) -> Iterator[DashboardSpec]:
        for dashboard in self._of_type("AWS::CloudWatch::Dashboard"):
            name = self._property(dashboard, "DashboardName", dashboard)
            yield DashboardSpec(str(name), str(self._property(dashboard, "DashboardBody")))

    def _target(self, match: re.Match[str] | None, logical_id: str, where: str) -> tuple[str, str]:
        if match is None:
            raise TemplateError(f"{logical_id}: {where}: does not go to an alias of a function")
        for function in self._of_type("AWS::Lambda::Function"):
            if self._function_name(function) == match["name"]:
                return function, match["alias"]
        raise TemplateError(f"{logical_id}: {where}: there is no function {match['name']!r} in this template")
