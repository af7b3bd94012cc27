"""A bound for the time in which an answer must arrive.

A read time-out bounds the silence between two bytes only: a peer that sends a byte every few seconds would keep us for minutes,
in the headers, or in what chunked encoding lets it send between the pieces of a body. So before each read the socket's time-out
is set to what is left of the whole: no thread watches, and there is none to lose in a fork or to find in a snapshot.
"""

from __future__ import annotations

import io
import socket
import time
from http import HTTPStatus
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from requests import Response
    from requests.adapters import HTTPAdapter


def bound_headers(adapter: HTTPAdapter) -> None:
    """Make the adapter's requests fail (ReadTimeout) when the headers take longer in all than the read time-out."""
    adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def bound_body(response: Response, seconds: float) -> None:
    """Make reading `response.raw` fail (urllib3's ReadTimeoutError) once that many seconds have gone by.

    For an answer that came, not read yet, by an adapter of `bound_headers`; another has no such bound.
    """
    answer = getattr(response.raw, "_original_response", None)
    if isinstance(answer, _Answer):
        answer.reader.end_in(seconds)


class _Reader(io.RawIOBase):
    """What a socket sends until a moment: the socket's own time-out from now on, or what `end_in` says later."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._file = peer.makefile("rb", buffering=0)
        self.end_in(peer.gettimeout() or 0)

    def end_in(self, seconds: float) -> None:
        self._until_seconds = time.monotonic() + seconds

    def makefile(self, _mode: str) -> io.BufferedReader:
        """All that an HTTPResponse asks of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._until_seconds - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._peer.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Answer(HTTPResponse):
    def __init__(self, peer: socket.socket, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        self.reader = _Reader(peer)
        super().__init__(self.reader, *arguments, **options)  # type: ignore[arg-type]  # it wants no more than makefile

    def begin(self) -> None:
        """Read the headers of the answer itself, and those that come before it (RFC 9110, 15.2) away.

        http.client knows 100 alone, and takes a 103 for the whole answer: the real one would answer the next request.
        """
        super().begin()
        while 100 < self.status < 200 and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment]  # as before the first
            super().begin()


class _HeadersInTime(HTTPConnection):
    response_class = _Answer  # made once the socket has the read time-out


class _Secure(_HeadersInTime, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _HeadersInTime


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure
