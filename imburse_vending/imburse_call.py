"""One HTTP call to Imburse with a token, and nowhere else: the host is the credential's own, and redirects are not followed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from imburse_vending.common import CommandError, ExitCode
from imburse_vending.door import checked_headers

if TYPE_CHECKING:
    import requests

    from imburse_auth.client import Vended

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 35
MOST_BYTES = 16 * 1024 * 1024
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

_METHODS = (*SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
_PATH = re.compile(r"/[!-~]*")
_HEADER = re.compile(r"([A-Za-z0-9-]{1,64}): *([ -~]{0,8192})")
_OURS = {"authorization", "x-account-id", "x-tenant-id", "host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True)
class Reply:
    """What Imburse answered. The body may hold anything: not in repr."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    seconds: float

    def document(self) -> Any:  # noqa: ANN401 - JSON
        """The body's JSON. Raises ValueError."""
        return json.loads(self.body)


def checked_method(text: str) -> str:
    """The method in capitals. Raises CommandError."""
    if text.upper() not in _METHODS:
        raise CommandError(f"METHOD: must be one of {', '.join(_METHODS)}", code=ExitCode.USAGE)
    return text.upper()


def checked_path(text: str) -> str:
    """A path with its query, that can lead to no other host. Raises CommandError, which names the rule."""
    path = text.partition("?")[0]
    decoded = unquote(unquote(path))  # also what is escaped twice
    if text.startswith("//") or not _PATH.fullmatch(text) or "#" in text or "\\" in decoded:
        rule = "must begin with one slash, as in /v1/identity/me, and hold neither host, space, backslash nor fragment"
        raise CommandError(f"PATH: {rule}", code=ExitCode.USAGE)
    if any(segment in (".", "..") for segment in decoded.split("/")):
        raise CommandError("PATH: must not hold . or .. as a part", code=ExitCode.USAGE)
    return text


def checked_extra(headers: list[str]) -> dict[str, str]:
    """`Name: value` texts, to headers. Raises CommandError, also for those that come with the token."""
    extra = {}
    for text in headers:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise CommandError("--header: must be 'Name: value' in printable ASCII", code=ExitCode.USAGE)
        if match[1].lower() in _OURS:
            raise CommandError(f"--header: {match[1]} comes with the token", code=ExitCode.USAGE)
        extra[match[1]] = match[2]
    return extra


def send(
    vended: Vended,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    extra: Mapping[str, str] | None = None,
    session: requests.Session | None = None,
) -> Reply:
    """Call once, which spends the token. Raises CommandError where no answer came; it holds no part of the request."""
    import requests
    from requests.adapters import HTTPAdapter

    from imburse_auth.in_time import bound_body, bound_headers

    headers = {"Accept": "application/json", **(extra or {}), **checked_headers(vended)}
    url = checked_base(vended.base_url) + checked_path(path)
    if session is None:
        session = requests.Session()
        session.trust_env = False  # a .netrc would replace the Authorization header, a proxy variable would see it
        # Or it reads the body of a redirect, however large.
        session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # noqa: ARG005
        adapter = HTTPAdapter()
        bound_headers(adapter)  # the time-out alone starts anew with each byte
        session.mount("https://", adapter)
        session.mount("http://", adapter)  # checked_base lets plain http through to this machine only
    timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    try:
        with session.request(
            method, url, headers=headers, data=body, allow_redirects=False, stream=True, timeout=timeout
        ) as response:
            bound_body(response, READ_TIMEOUT_SECONDS)
            content = response.raw.read(MOST_BYTES + 1, decode_content=True)
            seconds = response.elapsed.total_seconds()
            reply = Reply(response.status_code, response.reason or "", response.headers, content, seconds)
    except (requests.RequestException, OSError, ValueError) as exc:
        raise _no_answer(method, type(exc).__name__) from None
    except Exception as exc:
        # urllib3's own errors, which requests lets through while a body is read; they can carry the request.
        if type(exc).__module__.partition(".")[0] != "urllib3":
            raise
        raise _no_answer(method, type(exc).__name__) from None
    if len(content) > MOST_BYTES:
        raise CommandError(f"the answer is larger than {MOST_BYTES // 1024 // 1024} MiB")
    return reply


def checked_base(base_url: str) -> str:
    """The credential's base URL: https, or plain http to this machine. Raises CommandError."""
    from imburse_auth.hosts import normalise_base_url

    try:
        return normalise_base_url(base_url)
    except ValueError:
        problem = "the credential's base URL is none that a token may go to"
        raise CommandError(problem, next_step="give this to the operators") from None


def host(base_url: str) -> str:
    """Host and port, to name it."""
    return urlsplit(base_url).netloc


def _no_answer(method: str, kind: str) -> CommandError:
    if method in SAFE_METHODS:
        return CommandError(f"no answer from Imburse ({kind})", next_step="try again", code=ExitCode.TRY_LATER)
    # Not "try later": a script that repeats a payment must not do so on our word.
    return CommandError(f"no answer from Imburse ({kind})", next_step="look whether it was done before you repeat it")
