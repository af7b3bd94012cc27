"""Whose token makes, lists and deletes a credential's keys: its own, or that of the credential in `managedBy`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialMisconfigured, UpstreamProtocol
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.identity import identity_me
from imburse_auth.key_management import CALL_SECONDS, KeyManagement
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport
from vending.rotation.lease import RotationFailed
from vending.rotation.versions import Versions

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

IDENTITY_SECONDS = 10.0


class Vendor:
    """Imburse, as rotation needs it. Everything raises the errors of keys, hosts and exchange."""

    def __init__(
        self, secrets_manager: SecretsManagerClient, transport: Transport, exchange: Exchange, hosts: Hosts
    ) -> None:
        self._secrets_manager = secrets_manager
        self._transport = transport
        self._exchange = exchange
        self._hosts = hosts

    def keys(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        *,
        prolong: Callable[[], None],
        deadline: Deadline,
        correlation_id: str,
    ) -> KeyManagement:
        """The keys of the tenant that `api_key`, the credential's current one, is of.

        Raises CredentialMisconfigured if `managedBy` names one that cannot manage them.
        """
        tenant_id = tenant_of(api_key)
        base_url = self._hosts.base_url(credential, api_key.base_url)
        manager = self._manager(credential, api_key, base_url)

        def authorise() -> tuple[str, Mapping[str, str]]:
            prolong()
            soon = Deadline.after(min(CALL_SECONDS, deadline.remaining_seconds()), deadline.clock)
            exchanged = self._exchange.access_token(manager, base_url, deadline=soon, correlation_id=correlation_id)
            return base_url, exchanged.token.headers()

        return KeyManagement(self._transport, tenant_id, authorise, deadline=deadline, correlation_id=correlation_id)

    def prove(self, credential: CredentialId, api_key: ApiKey, *, deadline: Deadline, correlation_id: str) -> None:
        """Exchange the key for a token and use it: Imburse must name the key's own account and tenant.

        Raises UpstreamProtocol if it names others.
        """
        base_url = self._hosts.base_url(credential, api_key.base_url)
        exchanged = self._exchange.access_token(api_key, base_url, deadline=deadline, correlation_id=correlation_id)
        soon = Deadline.after(min(IDENTITY_SECONDS, deadline.remaining_seconds()), deadline.clock)
        found = identity_me(
            self._transport, base_url, exchanged.token.headers(), deadline=soon, correlation_id=correlation_id
        )
        for field, wanted, reached in (
            ("accountId", api_key.account_id, [*found.accounts, *found.tenants]),
            ("tenantId", api_key.tenant_id, found.tenants),
        ):
            if not _names(reached, field, wanted):
                raise UpstreamProtocol(f"Imburse does not name the new key's {field} among what it reaches")

    def _manager(self, credential: CredentialId, api_key: ApiKey, base_url: str) -> ApiKey:
        if api_key.managed_by is None:
            return api_key
        if api_key.managed_by.environment != credential.environment:
            raise CredentialMisconfigured("managedBy: must be a credential of the same environment")
        manager = Versions(self._secrets_manager, api_key.managed_by).current().api_key
        if manager.account_id != api_key.account_id:
            raise CredentialMisconfigured("managedBy: must be a credential of the same accountId")
        if manager.tenant_id not in (None, api_key.tenant_id):
            raise CredentialMisconfigured("managedBy: must be a credential of the account or of the same tenantId")
        if self._hosts.base_url(api_key.managed_by, manager.base_url) != base_url:
            raise CredentialMisconfigured("managedBy: must be a credential of the same base URL")
        return manager


def tenant_of(api_key: ApiKey) -> str:
    """The key's tenant. Raises RotationFailed for an account's key: Imburse makes keys of tenants only, outside its portal."""
    if api_key.tenant_id is None:
        raise RotationFailed(
            "tenantId: the secret has none, and an account's key can only be made in the Tenant Portal"
        )
    return api_key.tenant_id


def _names(reached: list[object], field: str, wanted: str | None) -> bool:
    """Whether an id stands among what is reached, whose shape is the vendor's own: an object with it, or the id itself."""
    return any(wanted in (one.get(field), one.get("id")) if isinstance(one, dict) else one == wanted for one in reached)
