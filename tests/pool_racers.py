"""What the races run in processes of their own: claimers that write down what they got, and refills.

`python -m tests.pool_racers URL TABLE claim THREADS` claims until the pool is empty, and prints each token that it got.
`python -m tests.pool_racers URL TABLE refill NAME COUNT` puts so many tokens, and prints each before it is put.
Each says `ready` first and waits for a line on its standard input. A line is written by one system call, so a kill leaves whole
lines, and whatever is on a line was said by someone who had it.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from tests import dynalite_server
from vending.supply.pool import Pool, Pooled
from vending.table import Table

CREDENTIAL = CredentialId("sandbox", "raced")
KEY = ApiKey("public-1", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "account-1", "tenant-a")
BASE_URL = "https://sandbox.imburse.test"
LEAST_SECONDS = 2
BATCH = 8


def pool(url: str, table: str) -> Pool:
    """The pool in that table, on a machine that may be slow."""
    return Pool(Table(dynalite_server.client(url), table), patience_seconds=60)


def pooled(value: str, life_seconds: int) -> Pooled:
    """A token of that value."""
    token = AccessToken(value, int(time.time()) + life_seconds, KEY.account_id, KEY.tenant_id)
    return Pooled(token, BASE_URL, KEY.public_key, None)


def say(line: str) -> None:
    """One line, at once and whole."""
    os.write(1, f"{line}\n".encode())


def claim(pool: Pool, batch: int) -> None:
    """Take tokens, so many at a time, until there are none."""
    got = True
    while got:
        got = False
        began = time.time()

        def on_claim(mine: Pooled, began: float = began) -> None:
            nonlocal got
            got = True
            say(mine.token.value + (" late" if mine.token.expires < began + LEAST_SECONDS else ""))

        pool.claim_many(CREDENTIAL, KEY, batch, least_seconds=LEAST_SECONDS, on_claim=on_claim)


def refill(pool: Pool, name: str, count: int) -> None:
    """Put that many new tokens, each said beforehand: what is not said was never in the pool."""
    for number in range(count):
        fresh = pooled(f"{name}-{number}", 1800)
        say(fresh.token.value)
        pool.put(CREDENTIAL, fresh)


def main(url: str, table: str, role: str, *rest: str) -> None:
    """Play one role."""
    mine = pool(url, table)
    say("ready")
    if not sys.stdin.readline():
        return  # the race was called off
    if role == "refill":
        refill(mine, rest[0], int(rest[1]))
        return
    # Half of them one at a time like a single vend, half like batches.
    sizes = [BATCH if number % 2 else 1 for number in range(int(rest[0]))]
    threads = [threading.Thread(target=claim, args=(mine, size)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
