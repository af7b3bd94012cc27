"""Tokens by the API: a request signed by the caller's IAM role (SigV4)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imburse_auth.client.api_answer import read_answer, read_batch
from imburse_auth.client.failed import VendingFailed, unexpected
from imburse_auth.client.patience import (
    CONNECT_TIMEOUT_SECONDS,
    PATIENCE_SECONDS,
    READ_TIMEOUT_SECONDS,
    Patience,
    PerProcess,
    region_of,
)
from imburse_auth.client.vended import Vended
from imburse_auth.credential import CredentialId
from imburse_auth.hosts import normalise_base_url

if TYPE_CHECKING:
    import boto3
    import requests

MAX_BODY_BYTES = 6 * 1024 * 1024  # what a Lambda function may answer; 500 tokens are about 1 MB


class ApiSource:
    """Vends through the API at `api_url` (the stack's output ApiUrl), as the role whose credentials `session` has.

    The credentials are asked of the session at each request, so those of a role are refreshed as boto3 does it. Nothing is
    read, imported or connected before the first request. The environment does not configure HTTP, as everywhere here: a
    .netrc would replace the signature, a proxy variable would see the tokens of a plain connection.
    Raises ValueError for a URL that is neither https nor on this machine.
    """

    def __init__(
        self,
        api_url: str,
        *,
        session: boto3.Session | None = None,
        region: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = normalise_base_url(api_url)
        self._region = region
        self._session = PerProcess(lambda: session or _boto3_session())
        self._patience = Patience(patience_seconds, monotonic, sleep)
        self._http = PerProcess(_http_session)

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
        """At least one token, at most `count`. Raises VendingFailed, and ValueError for a credential that is no id."""
        asked = {"minimumLifetimeSeconds": minimum_lifetime_seconds}
        route = "token"
        if count != 1:
            route, asked = "tokens", {"count": count, **asked}
        answer = self._ask("POST", credential, route, json.dumps(asked).encode())
        return read_batch([answer] if count == 1 else answer, credential, count)

    def identity(self, credential: str) -> dict[str, Any]:
        """Which accounts and tenants the key reaches, `{"credential", "accounts", "tenants"}`, and no token.

        Raises VendingFailed, and ValueError for a credential that is no id.
        """
        answer = self._ask("GET", credential, "identity", b"")
        if not isinstance(answer, dict) or answer.get("credential") != str(credential):
            raise unexpected("the answer is not this credential's identity", status=200)
        return answer

    def _ask(self, method: str, credential: str, route: str, body: bytes) -> Any:  # noqa: ANN401 - its JSON
        # Parsed, so that no credential's name can lead to another path.
        url = f"{self._url}/v1/credentials/{CredentialId.parse(str(credential))}/{route}"
        return self._patience(lambda: self._once(method, url, body))

    def _once(self, method: str, url: str, body: bytes) -> Any:  # noqa: ANN401 - its JSON
        import requests
        import urllib3

        headers = self._signed(method, url, body)
        # `from None`: what requests raises carries the request, and with it the signature.
        try:
            response = self._http.get().request(
                method,
                url,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                stream=True,
                timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS),
            )
            with response:
                return read_answer(response.status_code, response.headers, _body(response))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise VendingFailed(
                "unreachable", f"no answer from {urlsplit(url).netloc}: {type(exc).__name__}", retryable=True
            ) from None

    def _signed(self, method: str, url: str, body: bytes) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        session = self._session.get()
        region = self._region or region_of(session)
        if not region:
            raise VendingFailed("no_aws_credentials", "no AWS region is set: AWS_REGION, or region=")
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body:
            headers["Content-Type"] = "application/json"
        request = AWSRequest(method, url, data=body or None, headers=headers)
        try:
            credentials = session.get_credentials()
            if credentials is not None:
                SigV4Auth(credentials.get_frozen_credentials(), "execute-api", region).add_auth(request)
                return dict(request.headers.items())
        except BotoCoreError as exc:  # a role that cannot be assumed, a metadata service that does not answer
            raise VendingFailed(
                "no_aws_credentials", f"the AWS credentials cannot be read: {type(exc).__name__}", retryable=True
            ) from None
        raise VendingFailed("no_aws_credentials", "no AWS credentials are set: a role, a profile or AWS_ACCESS_KEY_ID")


def _boto3_session() -> boto3.Session:
    import boto3

    return boto3.Session()


def _http_session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter

    from imburse_auth.in_time import bound_headers

    session = requests.Session()
    session.trust_env = False
    # Or it reads the body of a redirect, however large.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # noqa: ARG005
    # No retries below ours: urllib3 would repeat a request whose signature may be too old by then.
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=32, max_retries=0, pool_block=True)
    bound_headers(adapter)
    session.mount("https://", adapter)
    session.mount("http://", adapter)  # only this machine: normalise_base_url
    return session


def _body(response: requests.Response) -> bytes:
    from imburse_auth.in_time import bound_body

    body = bytearray()
    bound_body(response, READ_TIMEOUT_SECONDS)
    while piece := response.raw.read1(64 * 1024, decode_content=False):
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise unexpected("the answer is larger than 6 MB", status=response.status_code)
    return bytes(body)
