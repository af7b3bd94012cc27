"""A bound for the time in which an answer's headers must arrive.

A read time-out bounds the silence between two bytes only: a peer that sends a byte every few seconds would keep us for minutes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter
    from urllib3.response import HTTPResponse


def bound_headers(adapter: HTTPAdapter) -> None:
    """Make the adapter's connections end when the headers take longer in all than the read time-out."""
    adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class _HeadersInTime(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself does
        """The answer. Raises TimeoutError, which urllib3 turns into its ReadTimeoutError."""
        late = threading.Event()
        peer = self.sock

        def hang_up() -> None:
            late.set()
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads; closing would not

        watchdog = threading.Timer(self.timeout or 0, hang_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            response = super().getresponse()
        finally:
            watchdog.cancel()
        if late.is_set():  # what was cut off here would otherwise read like the end of the headers
            raise TimeoutError
        return response


class _Secure(_HeadersInTime, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _HeadersInTime


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure
