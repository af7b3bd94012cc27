"""The tokens of one credential as a process holds them: taken ahead if asked to, handed to one request each."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from imburse_auth.client import sources
from imburse_auth.client.failed import VendingFailed, unexpected
from imburse_auth.client.sources import Source
from imburse_auth.client.vended import Vended
from imburse_auth.credential import CredentialId

MAX_AHEAD = 500


class Misdirected(ValueError):
    """A request is not for the credential's own host, so it was not sent; the message names both, without path or query."""


def origin(url: str) -> str:
    """`scheme://host:port` of a URL, the port always there: what two URLs must share for a token to go to both."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return "nowhere"
    return f"{parts.scheme}://{parts.hostname}:{port}"


def check_origin(url: str, vended: Vended) -> None:
    """Raises Misdirected unless the URL is on the host that the token is for."""
    if origin(url) != origin(vended.base_url):
        raise Misdirected(
            f"the request is for {origin(url)}, and the tokens of {vended.credential} only go to {origin(vended.base_url)}"
        )


@dataclass(frozen=True)
class Held:
    """A token, and until when it lives by our own clock, in seconds since the epoch."""

    vended: Vended
    until_seconds: float
    batch: int = 0  # the later, the larger


class _Fetch:
    """One thread asks for a batch, the others wait for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.failure: VendingFailed | None = None


@dataclass
class _State:
    source: Source
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: deque[Held] = field(default_factory=deque)
    fetch: _Fetch | None = None
    batches: int = 0


class TokenSupply:
    """One object serves all threads; a forked child, or a copy, starts with nothing, since the other uses what it holds.

    `ahead` tokens (1 to 500) are taken at a time and each is given out once. One that was held is dropped when less than
    `margin_seconds` of its life are left; a new one has `minimum_lifetime_seconds` (0 to 1500) left, or more.
    """

    def __init__(
        self,
        credential: str | CredentialId,
        source: Source | None = None,
        *,
        ahead: int = 1,
        minimum_lifetime_seconds: int = 300,
        margin_seconds: float = 60,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.credential = str(CredentialId.parse(str(credential)))
        if not 1 <= ahead <= MAX_AHEAD:
            raise ValueError(f"ahead: must be a whole number from 1 to {MAX_AHEAD}")
        if not 0 <= margin_seconds <= minimum_lifetime_seconds:
            raise ValueError("margin_seconds: must be from 0 to minimum_lifetime_seconds")
        self._own_source = source
        self._ahead = ahead
        self._minimum_lifetime_seconds = minimum_lifetime_seconds
        self._margin_seconds = margin_seconds
        self._clock = clock
        self._states: dict[tuple[int, int], _State] = {}
        self._from_env: dict[str, Source] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What the environment named is found anew by the copy, which may be in another process.
        return {**self.__dict__, "_states": {}, "_from_env": {}}

    def take(self) -> Held:
        """A token that nobody else gets. Raises VendingFailed, and ValueError if the environment names no source."""
        state = self._state()
        while True:
            with state.lock:
                if (held := self._next(state)) is not None:
                    return held
                fetch, mine = state.fetch, False
                if fetch is None or self._ahead == 1:  # single tokens are fetched side by side: nobody waits for nobody
                    fetch, mine = _Fetch(), True
                    if self._ahead > 1:
                        state.fetch = fetch
            if mine:
                return self._run(state, fetch)
            fetch.done.wait()
            if fetch.failure is not None:  # twenty that wait must not fail one after the other, ten seconds each
                raise fetch.failure.again()

    def give_back(self, held: Held) -> None:
        """Take back a token that was not sent anywhere; the next request gets it."""
        state = self._state()
        with state.lock:
            state.held.appendleft(held)

    def replacement(self, spent: Held) -> Held:
        """A token for a request whose own was refused, vended now. Raises as `take` does.

        What was taken ahead with the refused one, or before it, is thrown away: the key behind it may be gone.
        """
        state = self._state()
        with state.lock:
            state.held = deque(held for held in state.held if held.batch > spent.batch)
        return self._ask(state, 1)[0]

    def base_url(self) -> str:
        """Where the credential's tokens go. Takes one to find out, which the next request uses."""
        held = self.take()
        self.give_back(held)
        return held.vended.base_url

    def _run(self, state: _State, fetch: _Fetch) -> Held:
        try:
            # The margin is not for a new one: whoever vended it vouches for its lifetime.
            first, *others = self._ask(state, self._ahead)
            with state.lock:
                state.held.extend(others)
        except VendingFailed as failure:
            fetch.failure = failure
            raise
        finally:
            # Whatever happened, those who wait go on: to the tokens, to the failure, or to a try of their own.
            with state.lock:
                if state.fetch is fetch:
                    state.fetch = None
            fetch.done.set()
        return first

    def _ask(self, state: _State, count: int) -> list[Held]:
        with state.lock:
            state.batches += 1
            batch = state.batches
        asked_at = self._clock()
        tokens = state.source.tokens(self.credential, count, minimum_lifetime_seconds=self._minimum_lifetime_seconds)
        if not tokens:
            raise unexpected("the source gave no token")
        # By what the answer says is left, rather than by the time it names: our own clock may be wrong.
        return [
            Held(token, token.expires if token.expires_in is None else asked_at + token.expires_in, batch)
            for token in tokens
        ]

    def _next(self, state: _State) -> Held | None:
        now = self._clock()
        while state.held:
            held = state.held.popleft()
            if held.until_seconds - now >= self._margin_seconds:
                return held
        return None

    def _state(self) -> _State:
        """What this process holds, with the source in force: a test's stand-in, the one given, or the environment's."""
        source = sources.stand_in or self._own_source or self._from_env.get("source")
        if source is None:
            # setdefault, here and below: threads that begin at once must end up with one, or some waste what they took.
            source = self._from_env.setdefault("source", sources.source_from_env(os.environ))
        key = (os.getpid(), id(source))
        state = self._states.get(key)
        if state is None:
            # setdefault is one step for all threads, and the parent's lock may have been held at the fork: not touched.
            state = self._states.setdefault(key, _State(source))
            for other in [other for other in self._states if other != key]:
                self._states.pop(other, None)
        return state
