"""What nearly every function begins with: boto3 and one client, requests, Powertools' Logger and Metrics."""

from __future__ import annotations

from typing import Any

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics

secrets_manager = boto3.client("secretsmanager")
session = requests.Session()
logger = Logger(service="usual")
metrics = Metrics(namespace="Bench", service="usual")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer with nothing."""
    return {}
