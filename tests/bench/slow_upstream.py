"""The Imburse emulator in a process of its own, so that it has a core and an interpreter to itself, answering after a while.

`python -m tests.bench.slow_upstream SECONDS` reads the secret of the one key it knows from a line of standard input, writes its
base URL, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from local.imburse import Fault, Imburse, ImburseKey
from local.serving import bind, serving


@contextmanager
def slow_upstream(latency_seconds: float, secret: Mapping[str, Any]) -> Iterator[str]:
    """One that runs until the block is left; gives its base URL."""
    command = [sys.executable, "-m", "tests.bench.slow_upstream", str(latency_seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps(secret) + "\n")
            process.stdin.flush()
            url = process.stdout.readline().strip()
            assert url, "the upstream ended at once"
            yield url
        finally:
            process.stdin.close()


async def serve(latency_seconds: float) -> None:
    """Serve until the input ends."""
    imburse = Imburse([ImburseKey.from_json(json.loads(sys.stdin.readline()))])
    imburse.faults.add(Fault("latency", path="/v1/identity/hmac", seconds=latency_seconds))
    async with serving(imburse.app(), bind(0)) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
