"""A bound for the time in which an answer must arrive.

A read time-out bounds the silence between two bytes only: a peer that sends a byte every few seconds would keep us for minutes,
in the headers, or in what chunked encoding lets it send between the pieces of a body.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter
    from urllib3.response import HTTPResponse


@contextmanager
def in_time(seconds: float, hang_up: Callable[[], None]) -> Iterator[None]:
    """Call `hang_up`, which shuts a socket down, if the block takes longer; TimeoutError is raised then, whatever came of it.

    Shutting down wakes the thread that reads; closing would not.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        with suppress(OSError, ValueError):
            hang_up()

    watchdog = threading.Timer(seconds, end)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    except Exception:
        if late.is_set():
            raise TimeoutError from None
        raise
    finally:
        watchdog.cancel()
    if late.is_set():  # what was cut off would otherwise read like the end
        raise TimeoutError


def bound_headers(adapter: HTTPAdapter) -> None:
    """Make the adapter's connections end when the headers take longer in all than the read time-out."""
    adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class _HeadersInTime(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself does
        """The answer. Raises TimeoutError, which urllib3 turns into its ReadTimeoutError."""
        peer = self.sock
        with in_time(self.timeout or 0, lambda: peer.shutdown(socket.SHUT_RDWR)):
            return super().getresponse()


class _Secure(_HeadersInTime, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _HeadersInTime


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure
