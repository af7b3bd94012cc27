"""Who is calling, proven to the vend function: a signed request to AWS STS, `GetCallerIdentity`, good for this function alone.

The request itself never travels. A proof holds no more than what the function cannot know (who signed, when, the signature);
both sides build the request of it by what stands here, so the function sends what was signed, or STS refuses. Nothing in a
proof can name a host, a method, a header or a body.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import boto3

SERVICE = "sts"
BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"

_FUNCTION = re.compile(r"arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):[0-9]{12}:function:[A-Za-z0-9_-]+")
_GLOBAL_HOST = "sts.amazonaws.com"  # where the SDK's setting "legacy" leads in some regions; no function asks there


class CallerProof:
    """Makes proofs of who this process is, for one vend function: call it for each invoke, and send what it answers as `proof`.

    `function_arn` is the function's ARN without alias or version. Credentials come from `session`, by default boto3's usual
    chain, and are read at each call, since a role's change. `sts_url` is the endpoint that the function asks, by default its
    region's, or what AWS_ENDPOINT_URL_STS says. `clock` is seconds since the epoch. One object serves all threads.
    """

    def __init__(
        self,
        function_arn: str,
        *,
        session: boto3.Session | None = None,
        sts_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        match = _FUNCTION.fullmatch(function_arn)
        if match is None:
            raise ValueError("function_arn: must be the ARN of the vend function, without alias or version")
        self._audience = function_arn
        self._region = match["region"]
        self._session = session
        self._sts_url = sts_url
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, str]:
        """A fresh proof, good for one invoke within five minutes. It can be JSON, and is a secret for as long as it is good.

        `{"region", "accessKeyId", "date", "nonce", "signature", "sessionToken"?}`. Raises LookupError if there are no AWS
        credentials, and what botocore raises if they cannot be had.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        session, url = self._prepared()
        credentials = session.get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials is not None else None
        if frozen is None or not (frozen.access_key and frozen.secret_key):
            raise LookupError("there are no AWS credentials here, so nobody whose identity could be proven")
        date = datetime.fromtimestamp(self._clock(), UTC).strftime(DATE_FORMAT)
        # Two proofs of one second would be the same without it, and the second one refused as a replay.
        nonce = secrets.token_urlsafe(24)
        headers = request_headers(self._audience, date=date, nonce=nonce, session_token=frozen.token or None)
        request = AWSRequest("POST", f"{url.rstrip('/')}/", headers=headers, data=BODY)
        request.context["timestamp"] = date
        signer = SigV4Auth(frozen, SERVICE, self._region)
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        proof = {
            "region": self._region,
            "accessKeyId": frozen.access_key,
            "date": date,
            "nonce": nonce,
            "signature": signature,
        }
        return proof | {"sessionToken": frozen.token} if frozen.token else proof

    def _prepared(self) -> tuple[boto3.Session, str]:
        # Making a client is not thread-safe, and takes a while: it is made once, for botocore's own idea of the endpoint.
        with self._lock:
            if self._session is None:
                import boto3

                self._session = boto3.Session()
            if self._sts_url is None:
                url = str(self._session.client("sts", region_name=self._region).meta.endpoint_url)
                is_global = urlsplit(url).hostname == _GLOBAL_HOST
                self._sts_url = f"https://sts.{self._region}.amazonaws.com" if is_global else url
            return self._session, self._sts_url


def request_headers(audience: str, *, date: str, nonce: str, session_token: str | None) -> dict[str, str]:
    """The headers of the request, all of which are signed, and Host with them. `audience` is the vend function's ARN."""
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        "X-Amz-Date": date,
        "X-Imburse-Vending-Audience": audience,
        "X-Imburse-Vending-Nonce": nonce,
    }
    return headers if session_token is None else headers | {"X-Amz-Security-Token": session_token}


def authorization(headers: Mapping[str, str], *, access_key_id: str, region: str, signature: str) -> str:
    """The Authorization header of the request with these headers."""
    scope = f"{headers['X-Amz-Date'][:8]}/{region}/{SERVICE}/aws4_request"
    signed = ";".join(sorted({name.lower() for name in headers} | {"host"}))
    return f"AWS4-HMAC-SHA256 Credential={access_key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"
