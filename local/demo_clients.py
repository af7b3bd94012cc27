"""What a caller of the vending machine uses: nothing but AWS's own clients and a signed HTTP request."""

from __future__ import annotations

import boto3
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from mypy_boto3_lambda import LambdaClient
from mypy_boto3_secretsmanager import SecretsManagerClient

TIMEOUT_SECONDS = 15

_CONFIG = Config(retries={"max_attempts": 1}, connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS)


class Signed(requests.auth.AuthBase):
    """Signs a request for API Gateway with an AWS access key, as ``requests.post(url, auth=Signed(...))``."""

    def __init__(self, access_key_id: str, secret_access_key: str, region: str) -> None:
        self._signer = SigV4Auth(Credentials(access_key_id, secret_access_key), "execute-api", region)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the signature's headers to a request that is ready to be sent."""
        signed = AWSRequest(request.method, request.url, data=request.body)
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


def lambda_client(endpoint_url: str, region: str) -> LambdaClient:
    """Answer boto3's Lambda client for the local host, which asks for no real credentials."""
    session = boto3.Session("local", "local", region_name=region)
    return session.client("lambda", endpoint_url=endpoint_url, config=_CONFIG)


def secrets_client(endpoint_url: str, region: str) -> SecretsManagerClient:
    """Answer boto3's Secrets Manager client for the local moto."""
    session = boto3.Session("local", "local", region_name=region)
    return session.client("secretsmanager", endpoint_url=endpoint_url, config=_CONFIG)
