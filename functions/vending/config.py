"""What a function is told by its environment variables, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imburse_auth.hosts import Hosts


@dataclass(frozen=True)
class Config:
    """The settings of a function that vends.

    `service` names the function in logs and metrics, `access_policy` is the path of its Cedar policy, `hosts` the map from
    environment to base URL.
    """

    service: str
    access_policy: Path
    hosts: Hosts

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Config:
        """Read the environment. Raises ValueError, which names the variable and the rule."""
        return cls(
            service=required(environ, "POWERTOOLS_SERVICE_NAME"),
            access_policy=Path(required(environ, "ACCESS_POLICY")),
            hosts=hosts_from_env(environ),
        )


def hosts_from_env(environ: Mapping[str, str]) -> Hosts:
    """The map in IMBURSE_HOSTS. Raises ValueError, which names the variable and the rule."""
    try:
        return Hosts.parse(required(environ, "IMBURSE_HOSTS"))
    except ValueError as exc:
        raise ValueError(f"IMBURSE_HOSTS: {exc}") from exc


def required(environ: Mapping[str, str], variable: str) -> str:
    """The value of a variable that must be set. Raises ValueError, which names it."""
    value = environ.get(variable, "").strip()
    if not value:
        raise ValueError(f"{variable}: this environment variable must be set")
    return value
