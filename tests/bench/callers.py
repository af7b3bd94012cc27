"""Callers in a process of their own, and cheap: they send the same bytes over and over on connections that they keep.

`python -m tests.bench.callers` reads one order a line from standard input, writes what came of each, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Order:
    """So many callers post `body` to `url`, each as soon as it has its answer, for so many seconds or until it has had `most`.

    What is `wanted` stands in every good answer.
    """

    url: str
    body: str
    wanted: str
    callers: int = 1
    seconds: float = 600
    most: int = sys.maxsize


class Callers:
    """The process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def rate(self, order: Order) -> float:
        """Good answers a second. Raises AssertionError, which tells of the first that was not good."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline() or '{"wrong": "the callers ended"}')
        assert "wrong" not in told, told["wrong"]
        return float(told["rate"])


@contextmanager
def callers() -> Iterator[Callers]:
    """A process that takes orders until the block is left."""
    command = [sys.executable, "-m", "tests.bench.callers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        try:
            yield Callers(process)
        finally:
            process.stdin.close()


async def _obey(order: Order) -> dict[str, float | str]:
    began = time.perf_counter()
    try:
        answers = await asyncio.gather(*(_call(order, began + order.seconds) for _ in range(order.callers)))
    except (OSError, EOFError, ValueError) as exc:
        return {"wrong": f"{type(exc).__name__}: {exc}"}
    return {"rate": sum(answers) / (time.perf_counter() - began)}


async def _call(order: Order, until: float) -> int:
    """How many good answers came, the last of them perhaps after the time was up."""
    url = urlsplit(order.url)
    body = order.body.encode()
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    answers = 0
    try:
        while answers < order.most and time.perf_counter() < until:
            writer.write(request)
            headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(headers.partition("content-length:")[2].partition("\r\n")[0])
            answer = await reader.readexactly(length)
            status = headers.split(" ", 2)[1]
            if status != "200" or "x-amz-function-error" in headers or order.wanted.encode() not in answer:
                raise ValueError(f"{url.path} answered with status {status}, and not what was wanted")
            answers += 1
    finally:
        writer.close()
    return answers


def main() -> None:
    """Obey until the input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asyncio.run(_obey(Order(**json.loads(line))))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
