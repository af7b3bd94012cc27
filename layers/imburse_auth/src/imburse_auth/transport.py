"""One HTTP request to Imburse: https, no redirects, bounded in time and size, and every way it fails turned into ours."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from imburse_auth.errors import (
    UpstreamAnswer,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
    plain_correlation_id,
)
from imburse_auth.in_time import bound_body, bound_headers
from imburse_auth.retry import Deadline

MAX_CONNECTIONS = 32
CONNECT_TIMEOUT_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 5.0
MAX_BODY_BYTES = 64 * 1024
LONGEST_RETRY_AFTER_SECONDS = 3600


class Unauthorized(UpstreamRejected):
    """A 401. Both are seconds since the epoch: the upstream's own time (its Date header), if it told, and what was signed."""

    date_seconds: float | None = None
    signed_at_seconds: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A 2xx answer: the JSON of its body (None for a 204), the upstream's correlation id, and its time (its Date header).

    The body may hold a token or a key: not in repr. `date_seconds` is seconds since the epoch, None if it did not tell.
    """

    payload: Any = field(repr=False)
    correlation_id: str | None
    date_seconds: float | None = None


class Transport:
    """One kept-alive session for all threads, at most 32 connections a host.

    Connections are made on first use, never while a function is being initialised: a SnapStart snapshot holds none.
    """

    def __init__(self) -> None:
        self._session = _session()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        deadline: Deadline,
        correlation_id: str | None = None,
        body: object = None,
    ) -> Answer:
        """Send one request, once, with `body` as JSON unless it is None (bytes: as they are), and read its JSON answer.

        Raises Unauthorized (401), UpstreamRejected (other 4xx), UpstreamThrottled (429), UpstreamUnavailable (5xx, no
        connection, time-out, an answer cut off) and UpstreamProtocol (redirect, too large, not JSON, anything else).
        """
        left = deadline.remaining_seconds()
        if left <= 0:
            raise UpstreamUnavailable("no time was left to ask Imburse")
        all_headers = {**self._session.headers, **headers}
        if correlation_id is not None:
            all_headers["X-Correlation-ID"] = correlation_id
        if body is not None and not isinstance(body, bytes):
            all_headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        request = requests.PreparedRequest()
        # `from None` throughout: what requests raises can carry the request, and with it the Authorization header.
        try:
            # Straight to the adapter: a session reads the body of a redirect, whole and unpacked, before anybody sees it, and
            # looks for settings to merge, of which there are none, for a sixth of the whole call.
            request.prepare(method=method, url=url, headers=all_headers, data=body)
            response = self._session.get_adapter(url).send(
                request,
                stream=True,
                verify=self._session.verify or True,
                timeout=urllib3.Timeout(  # type: ignore[arg-type]  # requests takes it, its stubs do not
                    connect=min(CONNECT_TIMEOUT_SECONDS, left), read=min(READ_TIMEOUT_SECONDS, left), total=left
                ),
            )
        except (requests.ConnectionError, requests.Timeout) as exc:
            raise UpstreamUnavailable("no answer from Imburse", reason=type(exc).__name__) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as exc:
            raise UpstreamProtocol("Imburse's answer is not HTTP", reason=type(exc).__name__) from None
        with response:
            return _read(response, deadline)


def _session() -> requests.Session:
    # For its adapters and headers: nothing is sent by it, so no .netrc, proxy variable or cookie decides what is sent where.
    session = requests.Session()
    session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
    # No retries below ours: urllib3 would repeat the header, and a nonce that was seen is refused (protocol.md, section 2).
    adapter = HTTPAdapter(pool_connections=8, pool_maxsize=MAX_CONNECTIONS, max_retries=0, pool_block=True)
    bound_headers(adapter)
    session.mount("https://", adapter)
    session.mount("http://", adapter)  # Hosts lets plain http through to this machine only
    return session


def _read(response: requests.Response, deadline: Deadline) -> Answer:
    status = response.status_code
    if (
        status < 200
    ):  # before anything is read, so that the connection is closed: what comes on it next is nobody's answer
        raise UpstreamProtocol("Imburse answered with a change of protocol", upstream=UpstreamAnswer(status))
    if 300 <= status < 400:
        raise UpstreamProtocol(
            "Imburse answered with a redirect, which is not followed", upstream=UpstreamAnswer(status)
        )
    body = _body(response, deadline)
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    correlation_id = plain_correlation_id(response.headers.get("X-Correlation-ID"))
    answer = UpstreamAnswer.of(status, payload, correlation_id)
    if status in (200, 201, 204):
        if payload is None and status != 204:
            raise UpstreamProtocol("Imburse's answer is not JSON", upstream=answer)
        return Answer(payload, answer.correlation_id, _date_seconds(response.headers.get("Date")))
    if status == 429:
        raise UpstreamThrottled(
            "Imburse is limiting our requests", upstream=answer, retry_after_seconds=_retry_after_seconds(response)
        )
    if status >= 500:
        raise UpstreamUnavailable(
            "Imburse has a fault", upstream=answer, retry_after_seconds=_retry_after_seconds(response)
        )
    if status == 401:
        unauthorized = Unauthorized("Imburse does not accept the key", upstream=answer)
        unauthorized.date_seconds = _date_seconds(response.headers.get("Date"))
        raise unauthorized
    if status >= 400:
        raise UpstreamRejected("Imburse refused the request", upstream=answer)
    raise UpstreamProtocol("Imburse answered with a status that means nothing here", upstream=answer)


def _body(response: requests.Response, deadline: Deadline) -> bytes:
    body = bytearray()
    bound_body(response, min(READ_TIMEOUT_SECONDS, deadline.remaining_seconds()))
    try:
        while piece := response.raw.read1(MAX_BODY_BYTES + 1, decode_content=False):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                break
    except (urllib3.exceptions.HTTPError, OSError) as exc:
        raise UpstreamUnavailable("Imburse's answer was cut off", reason=type(exc).__name__) from None
    if len(body) > MAX_BODY_BYTES:
        raise UpstreamProtocol("Imburse's answer is larger than 64 KiB", upstream=UpstreamAnswer(response.status_code))
    expected = response.headers.get("Content-Length", "")
    if expected.isascii() and expected.isdigit() and len(body) < int(expected[:15]):
        raise UpstreamUnavailable("Imburse's answer was cut off")
    return bytes(body)


def _retry_after_seconds(response: requests.Response) -> int | None:
    """Whole seconds from Retry-After, which is a number or an HTTP date; None when it is absent or neither."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        seconds: float = int(value[:10])
    else:
        date = _date_seconds(value)
        if date is None:
            return None
        seconds = date - time.time()
    return math.ceil(min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS))


def _date_seconds(value: str | None) -> float | None:
    try:
        parsed: datetime = parsedate_to_datetime(value or "")
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
