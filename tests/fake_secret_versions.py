"""Secrets Manager with versions and stages, as AWS documents them: each stage on one version, AWSPREVIOUS moved by itself."""

# ruff: noqa: N803 - boto3's names of arguments

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from tests.fakes import aws_error


class FakeSecretVersions:
    """What boto3's client shows of it. `versions[name][version id]` is the text, or None while it was only announced."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, str | None]] = {}
        self.stages: dict[str, dict[str, str]] = {}  # name -> stage -> version id

    def create(self, credential: str, members: dict[str, Any]) -> None:
        """A secret with one version, which is current."""
        name, version = f"imburse/{credential}", str(uuid.uuid4())
        self.versions[name] = {version: json.dumps(members)}
        self.stages[name] = {"AWSCURRENT": version}

    def announce(self, credential: str, token: str) -> None:
        """What RotateSecret does before the first step: a version without a value, which has AWSPENDING."""
        self.versions[f"imburse/{credential}"][token] = None
        self.stages[f"imburse/{credential}"]["AWSPENDING"] = token

    def current(self, credential: str) -> dict[str, Any]:
        """The members of the current version."""
        name = f"imburse/{credential}"
        members: dict[str, Any] = json.loads(self.versions[name][self.stages[name]["AWSCURRENT"]] or "")
        return members

    def describe_secret(self, *, SecretId: str) -> dict[str, Any]:
        self._require(SecretId)
        found: dict[str, list[str]] = {}
        for stage, version in self.stages[SecretId].items():
            found.setdefault(version, []).append(stage)
        return {"Name": SecretId, "VersionIdsToStages": found}

    def get_secret_value(
        self, *, SecretId: str, VersionStage: str | None = None, VersionId: str | None = None
    ) -> dict[str, Any]:
        self._require(SecretId)
        assert VersionStage or VersionId, "moto's default is a stale version"
        version = VersionId if VersionStage is None else self.stages[SecretId].get(VersionStage)
        if version is None or VersionId not in (None, version):
            raise aws_error("ResourceNotFoundException")
        text = self.versions[SecretId].get(version)
        if text is None:
            raise aws_error("ResourceNotFoundException")
        return {"VersionId": version, "SecretString": text}

    def put_secret_value(
        self,
        *,
        SecretId: str,
        ClientRequestToken: str,
        SecretString: str,
        VersionStages: list[str],
    ) -> None:
        self._require(SecretId)
        assert VersionStages == ["AWSPENDING"]
        if self.versions[SecretId].get(ClientRequestToken) not in (None, SecretString):
            raise aws_error("ResourceExistsException")
        self.versions[SecretId][ClientRequestToken] = SecretString
        self.stages[SecretId]["AWSPENDING"] = ClientRequestToken

    def update_secret_version_stage(
        self,
        *,
        SecretId: str,
        VersionStage: str,
        RemoveFromVersionId: str,
        MoveToVersionId: str | None = None,
    ) -> None:
        self._require(SecretId)
        stages = self.stages[SecretId]
        if VersionStage == "AWSPENDING":
            assert MoveToVersionId is None
            if stages.get("AWSPENDING") != RemoveFromVersionId:
                raise aws_error("InvalidParameterException")
            del stages["AWSPENDING"]
            return
        assert VersionStage == "AWSCURRENT"
        assert MoveToVersionId is not None
        if stages["AWSCURRENT"] != RemoveFromVersionId or MoveToVersionId not in self.versions[SecretId]:
            raise aws_error("InvalidParameterException")
        stages["AWSPREVIOUS"], stages["AWSCURRENT"] = RemoveFromVersionId, MoveToVersionId

    def get_paginator(self, operation: str) -> FakeSecretVersions:
        assert operation == "list_secrets"
        return self

    def paginate(self, *, Filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        assert Filters == [{"Key": "name", "Values": ["imburse/"]}]
        yield {"SecretList": [{"Name": name} for name in self.versions]}

    def _require(self, name: str) -> None:
        if name not in self.versions:
            raise aws_error("ResourceNotFoundException")
