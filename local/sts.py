"""AWS STS on one machine, as far as GetCallerIdentity goes: it says who signed the request.

It knows the callers of the API front, and verifies what they sign with the same code. Like AWS's it answers JSON to who asks
for it and XML else, wants the region it is in, and takes what was signed within 15 minutes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from local.api_caller import LocalCaller
from local.sigv4 import SignatureRefused, WireRequest, verify

WINDOW = timedelta(minutes=15)
MAX_BODY_BYTES = 64 * 1024
_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
# The same refusals under the names that STS has for them.
_CODES = {
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "IncompleteSignatureException": "IncompleteSignature",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
}


def _now() -> datetime:
    return datetime.now(UTC)


def sts(callers: Mapping[str, LocalCaller], *, region: str, now: Callable[[], datetime] = _now) -> web.Application:
    """Answer the application; ``callers`` maps an access key id to who signs with it, and may change while it runs."""
    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_route("*", "/", _Sts(callers, region, now).answer)
    return application


@dataclass(frozen=True)
class _Sts:
    callers: Mapping[str, LocalCaller]
    region: str
    now: Callable[[], datetime]

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request of a client."""
        as_json = "application/json" in request.headers.get("Accept", "")
        wire = WireRequest(request.method, request.raw_path, tuple(request.headers.items()), await request.read())
        try:
            caller = self._caller(wire)
        except SignatureRefused as refused:
            code = _CODES.get(refused.error_type, refused.error_type)
            return _error(403, code, refused.message, as_json=as_json)
        fields = dict(parse_qsl(wire.body.decode(errors="replace") if request.method == "POST" else wire.query))
        if fields != {"Action": "GetCallerIdentity", "Version": "2011-06-15"}:
            return _error(400, "InvalidAction", "Only GetCallerIdentity of 2011-06-15 is here.", as_json=as_json)
        result = {"Arn": caller.user_arn, "UserId": caller.principal_id, "Account": caller.account_id}
        return _answer(200, "GetCallerIdentityResponse", {"GetCallerIdentityResult": result}, as_json=as_json)

    def _caller(self, wire: WireRequest) -> LocalCaller:
        def secret_of(access_key_id: str) -> str | None:
            known = self.callers.get(access_key_id)
            return known.secret_access_key if known else None

        access_key_id = verify(wire, secret_of, self.now(), service="sts", window=WINDOW)
        if f"/{self.region}/sts/aws4_request" not in wire.values("authorization")[0]:
            message = f"Credential should be scoped to a valid region, not another than '{self.region}'."
            raise SignatureRefused("InvalidSignatureException", message)
        return self.callers[access_key_id]


def _error(status: int, code: str, message: str, *, as_json: bool) -> web.Response:
    error = {"Type": "Sender", "Code": code, "Message": message}
    if as_json:
        return web.json_response({"Error": error, "RequestId": str(uuid.uuid4())}, status=status)
    return _answer(status, "ErrorResponse", {"Error": error}, as_json=False)


def _answer(status: int, name: str, members: dict[str, Any], *, as_json: bool) -> web.Response:
    members = {**members, "ResponseMetadata": {"RequestId": str(uuid.uuid4())}}
    if as_json:
        return web.json_response({name: members}, status=status)
    text = f'<{name} xmlns="{_NAMESPACE}">{_xml(members)}</{name}>'
    return web.Response(status=status, text=text, content_type="text/xml")


def _xml(members: Mapping[str, Any]) -> str:
    return "".join(
        f"<{name}>{_xml(value) if isinstance(value, Mapping) else escape(str(value))}</{name}>"
        for name, value in members.items()
    )
