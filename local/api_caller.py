"""Who may sign requests to the local API, and how API Gateway would describe them to a function."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

_ROLE = re.compile(r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>[0-9]{12}):role/(?:.*/)?(?P<name>[^/]+)")
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::([0-9]{12}):.+")


@dataclass(frozen=True)
class LocalCaller:
    """An access key and the principal it belongs to: an IAM role ARN or an assumed-role ARN."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    arn: str

    def __post_init__(self) -> None:
        if _ACCOUNT.fullmatch(self.arn) is None:
            raise ValueError(f"{self.access_key_id}: arn must be the ARN of an IAM role or an assumed role")

    @property
    def user_arn(self) -> str:
        """The ARN that AWS vouches for: nobody acts as a role itself, only in a session of it (and without its path)."""
        role = _ROLE.fullmatch(self.arn)
        if role is None:
            return self.arn
        return f"arn:{role['partition']}:sts::{role['account']}:assumed-role/{role['name']}/local-{self.access_key_id}"

    @property
    def account_id(self) -> str:
        """The twelve digits of the caller's AWS account."""
        account = _ACCOUNT.fullmatch(self.arn)
        return account[1] if account else ""

    @property
    def principal_id(self) -> str:
        """The unique id of the session, ``AROA...:<session name>``."""
        resource, _, session = self.user_arn.rpartition("/")
        return f"AROA{hashlib.sha256(resource.encode()).hexdigest()[:17].upper()}:{session}"
