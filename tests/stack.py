"""template.yaml as CloudFormation would deploy it, with invented names for what only a deployment knows, and IAM's judgement of its policies."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from local.template_intrinsics import Resolver
from local.template_source import load

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "template.yaml"
ACCOUNT, REGION, STACK_NAME = "123456789012", "eu-west-1", "imburse-vending-dev"
ORGANIZATION = "o-exampleorg1"
_PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK_NAME,
    "AWS::URLSuffix": "amazonaws.com",
}

Judgement = Literal["Allow", "Deny", "silent"]


@dataclass(frozen=True)
class Stack:
    """The resources that a set of parameters makes, every intrinsic resolved.

    A reference to a resource reads `<VendRole>`, one to an attribute `<VendRole.Arn>`.
    """

    resources: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, str]
    rule_holds: bool

    def of_type(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """Logical id to properties."""
        return {name: r.get("Properties", {}) for name, r in self.resources.items() if r["Type"] == kind}

    def properties(self, logical_id: str) -> Mapping[str, Any]:
        """The properties of one resource."""
        properties: Mapping[str, Any] = self.resources[logical_id]["Properties"]
        return properties

    def named(self, reference: str) -> Mapping[str, Any]:
        """The properties of what a reference, `<VendRole>` or `<VendRole.Arn>`, points at."""
        return self.properties(reference.strip("<>").split(".")[0])

    def statements(self, role: str) -> list[Mapping[str, Any]]:
        """Every statement that a role is given, inline or by a managed policy of the stack."""
        properties = self.properties(role)
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        documents += [self.named(arn)["PolicyDocument"] for arn in properties.get("ManagedPolicyArns", [])]
        return [statement for document in documents for statement in document["Statement"]]


@functools.cache
def template_text() -> str:
    """The file, read once."""
    return TEMPLATE.read_text(encoding="utf-8")


def template() -> dict[str, Any]:
    """The file's content, short tags in their long form: a copy that may be changed."""
    return load(TEMPLATE)


@functools.cache
def deploy(*, policy_layer: str = "s3://bucket/policy", **parameters: str) -> Stack:
    """What a deployment with these parameters makes; `policy_layer` is where the policy layer's content was uploaded."""
    source = template()
    # `sam build` and `sam deploy` put the address of the uploaded code here.
    source["Globals"]["Function"]["CodeUri"] = "s3://bucket/functions"
    source["Resources"]["ImburseAuthLayer"]["Properties"]["ContentUri"] = "s3://bucket/layer"
    source["Resources"]["AccessPolicyLayer"]["Properties"]["ContentUri"] = policy_layer
    values = {name: str(parameter["Default"]) for name, parameter in source["Parameters"].items()} | parameters
    translated = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION)).translate(source, values)
    resolver = Resolver(
        values | _PSEUDO,
        translated["Conditions"],
        {},
        lambda name, attribute: f"<{name}>" if attribute == "Ref" else f"<{name}.{attribute}>",
    )
    resources = {
        name: resolver.resolve(resource)
        for name, resource in translated["Resources"].items()
        if "Condition" not in resource or resolver.condition(resource["Condition"])
    }
    outputs = {name: resolver.resolve(output["Value"]) for name, output in translated["Outputs"].items()}
    rules = [resolver.resolve(a["Assert"]) for rule in translated["Rules"].values() for a in rule["Assertions"]]
    return Stack(resources, outputs, all(rules))


def listed(value: object) -> list[Any]:
    """IAM takes one where it takes many."""
    return value if isinstance(value, list) else [value]


def judge(
    statements: Iterable[Mapping[str, Any]], action: str, resource: str, context: Mapping[str, str] | None = None
) -> Judgement:
    """What a policy says: an explicit denial first, then an explicit allow, else nothing. Principals are not looked at."""
    effects = {
        statement["Effect"]
        for statement in statements
        if any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
        and _holds(statement.get("Condition", {}), context or {})
    }
    return "Deny" if "Deny" in effects else "Allow" if "Allow" in effects else "silent"


def _holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, wanted in condition.items():
        negated = "Not" in operator
        every = operator.startswith("ForAllValues:")
        if operator.removeprefix("ForAllValues:").replace("Not", "") not in {"StringEquals", "StringLike", "ArnLike"}:
            raise NotImplementedError(operator)
        for key, patterns in wanted.items():
            if every and key not in context:
                continue  # IAM: of no values, all match
            # IAM: a key that the request lacks satisfies a negated operator and no other.
            matches = key in context and any(
                context[key] == pattern if operator.endswith("Equals") else fnmatchcase(context[key], pattern)
                for pattern in map(str, listed(patterns))
            )
            if matches == negated:
                return False
    return True
