"""Which hosts may be spoken to: one map from environment to base URL, which is the allow-list too."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialMisconfigured

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Hosts:
    """The base URL of each environment. A credential may name another host only if it stands here for some environment."""

    def __init__(self, base_urls: Mapping[str, str]) -> None:
        self._base_urls = {environment: normalise_base_url(url) for environment, url in base_urls.items()}
        self._allowed = frozenset(self._base_urls.values())

    @classmethod
    def parse(cls, text: str) -> Hosts:
        """Read `sandbox=https://...,production=https://...`. Raises ValueError, which names the entry and the rule."""
        base_urls: dict[str, str] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            environment, separator, url = (part.strip() for part in entry.partition("="))
            if not separator:
                raise ValueError(f"{entry}: must be <environment>=<base URL>")
            if environment in base_urls:
                raise ValueError(f"{environment}: stands there twice")
            CredentialId(environment, "any")  # an environment that no credential can name would be a slip
            base_urls[environment] = url
        if not base_urls:
            raise ValueError("must map at least one environment to a base URL")
        return cls(base_urls)

    def base_url(self, credential: CredentialId, own: str | None) -> str:
        """Where this credential's key is exchanged: its own `baseUrl` if it has one, else its environment's.

        Raises CredentialMisconfigured if that host is not on the list.
        """
        if own is None:
            url = self._base_urls.get(credential.environment)
            if url is None:
                raise CredentialMisconfigured("environment: no base URL is set for it")
            return url
        try:
            normalised = normalise_base_url(own)
        except ValueError as exc:
            raise CredentialMisconfigured("baseUrl: must be an https URL without user, query or fragment") from exc
        if normalised not in self._allowed:
            raise CredentialMisconfigured("baseUrl: is not a host that this system may speak to")
        return normalised


def normalise_base_url(url: str) -> str:
    """Scheme and host in lower case, no default port, no slash at the end. Raises ValueError, which names the rule.

    Only https, and plain http to this machine itself.
    """
    if not url.isascii() or any(character in url for character in "\\@?#%") or not url.isprintable() or " " in url:
        raise ValueError("base URL: must be plain ASCII without user, query, fragment or escapes")
    parts = urlsplit(url)
    host = parts.hostname
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("base URL: must be https://<host>")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("base URL: must be https, since the host is not this machine")
    port = parts.port  # raises ValueError for a port that is none
    address = f"[{host}]" if ":" in host else host
    if port is not None and port != {"https": 443, "http": 80}[parts.scheme]:
        address = f"{address}:{port}"
    return f"{parts.scheme}://{address}{parts.path.rstrip('/')}"
