"""A vend as a tutorial would write it with the same libraries: resolver, secret from Parameters, HMAC, one `requests.post`.

It is right, and it asks nobody whether the caller may. `IMBURSE_URL` is Imburse's base URL; `SECRET_PREFIX` and the two parts of
the path name the secret, which Parameters keeps for its usual 5 seconds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
import uuid
from typing import Any

import requests
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.typing import LambdaContext

IMBURSE_URL = os.environ["IMBURSE_URL"]
SECRET_PREFIX = os.environ["SECRET_PREFIX"]
TIMEOUT_SECONDS = 10

logger = Logger(service="tutorial")
app = APIGatewayRestResolver()


@app.post("/v1/credentials/<environment>/<name>/token")
def vend(environment: str, name: str) -> dict[str, Any]:
    """Exchange the credential's key for a token: `{"accessToken", "expires"}`."""
    secret: Any = parameters.get_secret(f"{SECRET_PREFIX}{environment}/{name}", transform="json")
    nonce, timestamp = uuid.uuid4().hex, int(time.time())
    message = f"{secret['publicKey']}:{nonce}:{timestamp}:".encode()
    mac = hmac.new(base64.b64decode(secret["privateKey"]), message, hashlib.sha256).digest()
    signature = base64.b64encode(mac).decode()
    response = requests.post(
        f"{IMBURSE_URL}/v1/identity/hmac",
        headers={"Authorization": f"Hmac {secret['publicKey']}:{nonce}:{timestamp}:{signature}"},
        timeout=TIMEOUT_SECONDS,
    )
    response.raise_for_status()
    token = response.json()
    logger.info("token vended", extra={"credential": f"{environment}/{name}"})
    return {"accessToken": token["accessToken"], "expires": token["expires"]}


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a REST proxy event."""
    return app.resolve(event, context)
