"""Making, listing and deleting a tenant's keys (protocol.md, section 6). The paths stand here alone: two are our reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from imburse_auth.errors import UpstreamProtocol, UpstreamRejected
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport

KEYS_PATH = "/v1/tenant/{tenant_id}/keys"  # POST makes one, GET lists them
KEY_PATH = KEYS_PATH + "/{public_key}"  # DELETE
CALL_SECONDS = 7.0  # for one request: as long as the transport waits to connect and to read

# Where a call goes and what it carries: the base URL, and the headers with a token that nobody has used (section 3).
Authorise = Callable[[], tuple[str, Mapping[str, str]]]


@dataclass(frozen=True)
class ListedKey:
    """A key as Imburse lists it; `name` and `roles` are None where it does not tell."""

    public_key: str
    name: str | None
    roles: tuple[str, ...] | None


@dataclass(frozen=True)
class MadeKey:
    """A new key, as its making answers it: the only time that the private key is seen, and it is in no repr."""

    public_key: str
    private_key: str = field(repr=False)
    account_id: str
    tenant_id: str
    roles: tuple[str, ...] | None


class KeyManagement:
    """The keys of one tenant. Every call takes a token of its own from `authorise`, since a token is good for one call.

    Everything raises what `authorise` and Transport.send raise; nothing is tried twice.
    """

    def __init__(
        self,
        transport: Transport,
        tenant_id: str,
        authorise: Authorise,
        *,
        deadline: Deadline,
        correlation_id: str | None = None,
    ) -> None:
        self._transport = transport
        self._tenant_id = tenant_id
        self._authorise = authorise
        self._deadline = deadline
        self._correlation_id = correlation_id

    def make(self, name: str, roles: Sequence[str], *, before: Callable[[], None] = lambda: None) -> MadeKey:
        """Make a key. An error does not mean that none was made, unless it is UpstreamRejected or UpstreamThrottled.

        `before` is called when the token is there and nothing is left but to ask.
        """
        payload = self._send("POST", self._path(KEYS_PATH), {"name": name, "roles": list(roles)}, before)
        if not isinstance(payload, dict):
            raise UpstreamProtocol("Imburse's answer to making a key is not a JSON object")
        texts = [payload.get(member) for member in ("publicKey", "privateKey", "accountId", "tenantId")]
        if not all(isinstance(text, str) and text for text in texts):
            raise UpstreamProtocol(
                "Imburse's answer to making a key lacks publicKey, privateKey, accountId or tenantId"
            )
        public_key, private_key, account_id, tenant_id = (str(text) for text in texts)
        return MadeKey(public_key, private_key, account_id, tenant_id, _roles(payload))

    def list(self) -> tuple[ListedKey, ...]:
        """Every key of the tenant. The answer is a list of objects, bare or as `keys`: its shape is not printed either."""
        payload = self._send("GET", self._path(KEYS_PATH))
        keys = payload.get("keys") if isinstance(payload, dict) else payload
        if not isinstance(keys, list):
            raise UpstreamProtocol("Imburse's list of keys is not a list")
        return tuple(_listed(key) for key in keys)

    def delete(self, public_key: str, *, before: Callable[[], None] = lambda: None) -> None:
        """Delete a key, which revokes it at once and for good. One that is not there is gone already.

        Raises UpstreamProtocol if Imburse says so of a key that it lists: then the path is not what we take it for.
        """
        try:
            self._send("DELETE", self._path(KEY_PATH, public_key=public_key), before=before)
        except UpstreamRejected as exc:
            if exc.upstream is None or exc.upstream.status != 404:
                raise
            if public_key in {key.public_key for key in self.list()}:
                raise UpstreamProtocol("Imburse does not find a key that it lists") from exc

    def _send(self, method: str, path: str, body: object = None, before: Callable[[], None] = lambda: None) -> Any:  # noqa: ANN401 - JSON of any shape
        base_url, headers = self._authorise()
        before()
        deadline = Deadline.after(min(CALL_SECONDS, self._deadline.remaining_seconds()), self._deadline.clock)
        return self._transport.send(
            method, base_url + path, headers, deadline=deadline, correlation_id=self._correlation_id, body=body
        ).payload

    def _path(self, path: str, **parts: str) -> str:
        return path.format(
            tenant_id=quote(self._tenant_id, safe=""), **{name: quote(part, safe="") for name, part in parts.items()}
        )


def _listed(key: object) -> ListedKey:
    public_key = key.get("publicKey") if isinstance(key, dict) else None
    if not isinstance(key, dict) or not isinstance(public_key, str) or not public_key:
        raise UpstreamProtocol("Imburse's list of keys has a member without publicKey")
    name = key.get("name")
    return ListedKey(public_key, name if isinstance(name, str) else None, _roles(key))


def _roles(key: Mapping[str, Any]) -> tuple[str, ...] | None:
    roles = key.get("roles")
    return tuple(map(str, roles)) if isinstance(roles, list) else None
