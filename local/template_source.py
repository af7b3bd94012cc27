"""A SAM template as text, and the CloudFormation template that SAM makes of it."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse


class TemplateError(Exception):
    """The template cannot be run here; the message names the resource and the property."""


def load(path: Path) -> dict[str, Any]:
    """Reads a template, its short tags (`!Ref`) in their long form. Raises TemplateError."""
    try:
        source = copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise TemplateError(f"{path}: cannot be read as YAML: {exc}") from exc
    if not isinstance(source, dict) or not isinstance(source.get("Resources"), dict):
        raise TemplateError(f"{path}: there is no Resources section")
    return source


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Any:  # noqa: ANN401 - whatever the YAML holds
    # Kept, since reading ours takes 0.2 s and a start of the local stack wants it twice; a caller gets a copy to change.
    return yaml_parse(text)


def parameter_values(source: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """The parameters' values, text or list of texts; one without a default that is not overridden is left out."""
    values: dict[str, Any] = {}
    for name, definition in (source.get("Parameters") or {}).items():
        if name not in overrides and "Default" not in definition:
            continue
        value = str(overrides[name] if name in overrides else definition["Default"])
        is_list = definition.get("Type") == "CommaDelimitedList" or str(definition.get("Type")).startswith("List<")
        values[name] = [item.strip() for item in value.split(",")] if is_list else value
    return values


def translate(source: dict[str, Any], parameters: Mapping[str, str], region: str) -> dict[str, Any]:
    """What the AWS::Serverless transform makes of a template, which is changed on the way. Raises TemplateError."""
    for properties in _properties(source):
        for name in ("CodeUri", "ContentUri"):
            if name in properties:
                # The translator takes uploaded code only, and local folders are what `sam build` and we replace.
                properties[name] = "s3://local/code"
    # It warns of feature flags and metrics that only AWS's own service has.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    # All it asks of a boto3 session, and a real one would read the developer's profile.
    session = SimpleNamespace(region_name=region)
    try:
        translated = Translator({}, Parser(), boto_session=session).translate(source, dict(parameters))
    except InvalidDocumentException as exc:
        raise TemplateError("; ".join(cause.message for cause in exc.causes)) from exc
    assert isinstance(translated, dict)  # noqa: S101 - the translator has no types
    return translated


def _properties(source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (source.get("Globals") or {}).values():
        if isinstance(group, dict):
            yield group
    for resource in source["Resources"].values():
        if isinstance(resource, dict) and isinstance(resource.get("Properties"), dict):
            yield resource["Properties"]
