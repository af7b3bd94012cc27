"""A scheduled job that uses the client, run as a program: so many calls by four threads, and one line of JSON on what came."""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from imburse_auth.client import VendedSession, VendingFailed


def main(calls: int) -> None:
    """Ask Imburse `calls` times who we are, and count the answers by status or by the code of what went wrong."""
    with VendedSession("sandbox/tenant-a", ahead=10) as imburse, ThreadPoolExecutor(4) as pool:

        def call(_: int) -> str:
            try:
                return str(imburse.get("/v1/identity/me").status_code)
            except VendingFailed as failed:
                return failed.code

        print(json.dumps(Counter(pool.map(call, range(calls)))))  # noqa: T201 - it is what a job says


if __name__ == "__main__":
    main(int(sys.argv[1]))
