"""What a function is told by its environment variables, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imburse_auth.hosts import Hosts, normalise_base_url

_REGION = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True)
class Config:
    """The settings of a function that vends.

    `service` names the function in logs and metrics, `access_policy` is the path of its Cedar policy, `hosts` the map from
    environment to base URL. `sts_endpoints` maps a region to the STS endpoint that checks callers' proofs; where there is none,
    no proof is accepted.
    """

    service: str
    access_policy: Path
    hosts: Hosts
    sts_endpoints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Config:
        """Read the environment. Raises ValueError, which names the variable and the rule."""
        return cls(
            service=required(environ, "POWERTOOLS_SERVICE_NAME"),
            access_policy=Path(required(environ, "ACCESS_POLICY")),
            hosts=hosts_from_env(environ),
            sts_endpoints=_sts_endpoints(environ),
        )


def hosts_from_env(environ: Mapping[str, str]) -> Hosts:
    """The map in IMBURSE_HOSTS. Raises ValueError, which names the variable and the rule."""
    try:
        return Hosts.parse(required(environ, "IMBURSE_HOSTS"))
    except ValueError as exc:
        raise ValueError(f"IMBURSE_HOSTS: {exc}") from exc


def endpoints_of(text: str) -> dict[str, str]:
    """Read `eu-west-1=https://sts.eu-west-1.amazonaws.com,...`. Raises ValueError, which names the entry and the rule."""
    endpoints: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        region, separator, url = (part.strip() for part in entry.partition("="))
        if not separator or not _REGION.fullmatch(region):
            raise ValueError(f"{entry}: must be <region>=<base URL>")
        if region in endpoints:
            raise ValueError(f"{region}: stands there twice")
        endpoints[region] = normalise_base_url(url)
    return endpoints


def _sts_endpoints(environ: Mapping[str, str]) -> dict[str, str]:
    try:
        return endpoints_of(environ.get("STS_ENDPOINTS", ""))
    except ValueError as exc:
        raise ValueError(f"STS_ENDPOINTS: {exc}") from exc


def required(environ: Mapping[str, str], variable: str) -> str:
    """The value of a variable that must be set. Raises ValueError, which names it."""
    value = environ.get(variable, "").strip()
    if not value:
        raise ValueError(f"{variable}: this environment variable must be set")
    return value
