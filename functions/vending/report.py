"""The access report: which accounts and tenants each credential reaches, found out by a caller like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.errors import UpstreamProtocol, VendingError
from imburse_auth.hosts import Hosts
from imburse_auth.identity import Identity, identity_me
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport
from vending.access.caller import Caller, from_invoke
from vending.access.policy import Policy
from vending.config import Config, required
from vending.listing import credentials
from vending.record.log import make_logger, where

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

IDENTITY_SECONDS = 10.0
LONGEST_CREDENTIAL_SECONDS = 45.0  # a vend, whose function ends at 30 s, and the identity


class VendFailed(Exception):
    """The vend function refused. `error_type` is its class name, such as NotAuthorized."""

    def __init__(self, error_type: str) -> None:
        super().__init__(error_type)
        self.error_type = error_type


class ReportIncomplete(Exception):
    """Some credentials were not reached; the message is the report as JSON. It is what raises the alarm."""


class AccessReport:
    """Vends a token for each credential that its alias may inspect, and asks Imburse what the key behind it reaches.

    It holds no key and no right to read one: it gets its tokens by invoking `vend` through its own alias, so what it may
    have is decided by the policy, like for everybody. Copy it to write a scheduled job of your own.
    """

    def __init__(
        self,
        *,
        vend_function: str,
        policy: Policy,
        hosts: Hosts,
        secrets_manager: SecretsManagerClient,
        lambda_: LambdaClient,
        transport: Transport,
        logger: Logger,
    ) -> None:
        self._vend_function = vend_function
        self._caller: Caller = from_invoke(vend_function)
        self._policy = policy
        self._hosts = hosts
        self._secrets_manager = secrets_manager
        self._lambda = lambda_
        self._transport = transport
        self._logger = logger

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> AccessReport:
        """Read settings and make clients, without a call to anybody. Raises ValueError, which names the variable."""
        config, aws = Config.from_env(environ), Aws()
        return cls(
            vend_function=required(environ, "VEND_FUNCTION"),
            policy=Policy.load(config.access_policy),
            hosts=config.hosts,
            secrets_manager=aws.client("secretsmanager", connect_seconds=2, read_seconds=35, tries=2),
            # A vend may take as long as the vend function itself; a second try vends a second token and repeats none.
            lambda_=aws.client("lambda", connect_seconds=2, read_seconds=35, tries=2),
            transport=Transport(),
            logger=make_logger(config.service),
        )

    def run(self, deadline: Deadline) -> dict[str, Any]:
        """Ask for every credential and log one line each; what there is no time for by `deadline` fails as `not_asked`.

        Answers `{"reached": [credential, ...]}`. Raises ReportIncomplete, whose message has `"failed"` too: a map from
        credential to error code, or to the vend function's error type.
        """
        reached: list[str] = []
        failed: dict[str, str] = {}
        for credential in self._credentials():
            if deadline.remaining_seconds() < LONGEST_CREDENTIAL_SECONDS:
                failed[str(credential)] = "not_asked"
                continue
            try:
                found = self._identity(credential)
            except VendFailed as exc:
                failed[str(credential)] = exc.error_type
            except VendingError as exc:
                failed[str(credential)] = exc.code
            except Exception as exc:  # noqa: BLE001 - one credential's trouble must not hide the others
                self._logger.error("unexpected error", error_type=type(exc).__name__, where=where(exc))  # noqa: TRY400
                failed[str(credential)] = "internal_error"
            else:
                reached.append(str(credential))
                self._logger.info(
                    "credential reaches", credential=str(credential), accounts=found.accounts, tenants=found.tenants
                )
                continue
            self._logger.error("credential not reported", credential=str(credential), code=failed[str(credential)])
        if failed:
            raise ReportIncomplete(json.dumps({"reached": reached, "failed": failed}))
        return {"reached": reached}

    def _credentials(self) -> Iterator[CredentialId]:
        for credential in credentials(self._secrets_manager, self._logger):
            if self._policy.decide(self._caller, "inspect", credential).allowed:
                yield credential

    def _identity(self, credential: CredentialId) -> Identity:
        answer = self._vend(credential)
        base_url, headers = answer.get("baseUrl"), answer.get("headers")
        if not isinstance(base_url, str) or not isinstance(headers, dict):
            raise UpstreamProtocol("the vend function's answer has no baseUrl or no headers")
        return identity_me(
            self._transport,
            self._hosts.base_url(credential, base_url),
            headers,
            deadline=Deadline.after(IDENTITY_SECONDS),
        )

    def _vend(self, credential: CredentialId) -> dict[str, Any]:
        response = self._lambda.invoke(
            FunctionName=self._vend_function, Payload=json.dumps({"credential": str(credential)}).encode()
        )
        answer: dict[str, Any] = json.loads(response["Payload"].read())
        if response.get("FunctionError"):
            raise VendFailed(str(answer.get("errorType")))
        return answer
