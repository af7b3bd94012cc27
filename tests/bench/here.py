"""The handlers of both doors in this process, with the clients that they have on Lambda: what a vend takes and no door adds to."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from tests import dynalite_server
from tests.bench.whole_stack import CREDENTIAL, EMPTY, POOLED, WholeStack
from tests.machine import ACCOUNT, ENVIRON, Context, handler_module
from tests.patience import patient
from tests.pool_racers import pooled
from vending.service import Vending
from vending.supply.pool import Pool
from vending.table import Table

EVENTS = Path(__file__).parents[2] / "events"
LIFE_SECONDS = 1800
ALWAYS_ABOVE = 1_000_000


@dataclass
class Here:
    """`invoke` and `api` are the handlers. `pool` and its table are those of the machine behind them."""

    invoke: Callable[[Any, Any], dict[str, Any]]
    api: Callable[[Any, Any], dict[str, Any]]
    pool: Pool
    api_key: ApiKey
    base_url: str
    context: Context = field(default_factory=Context)
    _event: dict[str, Any] = field(default_factory=lambda: json.loads((EVENTS / "api_token.json").read_text()))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def vend(self, credential: str = CREDENTIAL) -> str:
        """One token by the direct door's handler."""
        return str(self.invoke({"credential": credential}, self.context)["accessToken"])

    def vend_by_api(self) -> None:
        """One token by the API door's handler, for the event of a real request."""
        assert self.api(self._event, self.context)["statusCode"] == 200

    def vend_pooled(self) -> None:
        """One token out of the pool."""
        assert self.vend(POOLED).startswith("pooled-"), "the pool did not answer"

    def batch(self, count: int, credential: str = CREDENTIAL) -> None:
        """So many tokens by the direct door's handler."""
        assert len(self.invoke({"credential": credential, "count": count}, self.context)["tokens"]) == count

    def fill(self, count: int) -> None:
        """Put so many tokens into the pool of POOLED, and have it stand above its low mark: nobody is to be woken."""
        credential = CredentialId.parse(POOLED)
        for number in itertools.islice(self._numbers, count):
            fresh = pooled(f"pooled-{number}", LIFE_SECONDS)
            self.pool.put(credential, replace(fresh, public_key=self.api_key.public_key, base_url=self.base_url))
        self.pool.set_level(credential, ALWAYS_ABOVE)


@contextmanager
def handlers(stack: WholeStack) -> Iterator[Here]:
    """Both, beside a stack: with its Imburse and its secrets, and a table on a dynalite of their own.

    They have more patience with the table than on Lambda, and what they write to standard output is thrown away.
    """
    vend, api = handler_module("vend"), handler_module("api")
    with dynalite_server.dynalite() as server, Path(os.devnull).open("w") as nowhere:
        table = server.new_table()
        environ = {
            **ENVIRON,
            "ACCESS_POLICY": str(stack.policy),
            "IMBURSE_HOSTS": f"sandbox={stack.imburse_url}",
            "VENDING_TABLE": table,
            "REFILL_FUNCTION": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:{EMPTY}:live",
            "AWS_ENDPOINT_URL": stack.doors.aws,
            "AWS_ENDPOINT_URL_DYNAMODB": server.url,
            "AWS_ENDPOINT_URL_LAMBDA": stack.doors.peers_invoke,
        }
        with mock.patch.dict(os.environ, environ), patient():
            vending = Vending.from_env(os.environ)
        pool = Pool(Table(dynalite_server.client(server.url), table))
        api_key = ApiKey.from_secret(json.dumps(stack.members))
        with (
            mock.patch.object(vend, "vending", vending),
            mock.patch.object(api, "vending", vending),
            redirect_stdout(nowhere),
        ):
            yield Here(vend.handler, api.handler, pool, api_key, stack.imburse_url)
