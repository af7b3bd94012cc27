"""The body of a refusal, read so that whoever streams the answer can still read all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

from imburse_auth.client.spent import MAX_BODY_BYTES


def _is_short(response: httpx.Response) -> bool | None:
    """Whether the body is short enough to be looked at, by its Content-Length; None if it has none, coming in chunks."""
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    return length.isascii() and length.isdigit() and int(length[:10]) <= MAX_BODY_BYTES


def peek(response: httpx.Response) -> bool:
    """Read the body, unless it is longer than MAX_BODY_BYTES. Whether it was read; if not, all of it is still to come."""
    stream = response.stream
    if _is_short(response) is False or not isinstance(stream, httpx.SyncByteStream):
        return False
    pieces, size, rest = list[bytes](), 0, iter(stream)
    try:
        for piece in rest:
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                break
    except httpx.RequestError as exc:
        exc.request = response.request
        raise
    response.stream = _Again(pieces, rest, stream)
    if size <= MAX_BODY_BYTES:
        response.read()
    return size <= MAX_BODY_BYTES


async def apeek(response: httpx.Response) -> bool:
    """`peek`, of an async client's answer."""
    stream = response.stream
    if _is_short(response) is False or not isinstance(stream, httpx.AsyncByteStream):
        return False
    pieces, size, rest = list[bytes](), 0, aiter(stream)
    try:
        async for piece in rest:
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                break
    except httpx.RequestError as exc:
        exc.request = response.request
        raise
    response.stream = _AsyncAgain(pieces, rest, stream)
    if size <= MAX_BODY_BYTES:
        await response.aread()
    return size <= MAX_BODY_BYTES


class _Again(httpx.SyncByteStream):
    """What was read, then the rest."""

    def __init__(self, pieces: list[bytes], rest: Iterator[bytes], whole: httpx.SyncByteStream) -> None:
        self._pieces, self._rest, self._whole = pieces, rest, whole

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        yield from self._rest

    def close(self) -> None:
        self._whole.close()


class _AsyncAgain(httpx.AsyncByteStream):
    """What was read, then the rest."""

    def __init__(self, pieces: list[bytes], rest: AsyncIterator[bytes], whole: httpx.AsyncByteStream) -> None:
        self._pieces, self._rest, self._whole = pieces, rest, whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        async for piece in self._rest:
            yield piece

    async def aclose(self) -> None:
        await self._whole.aclose()
