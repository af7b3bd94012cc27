"""End-to-end tests: real clients and processes, all on 127.0.0.1."""

from collections.abc import Iterator

import pytest

from tests import browser_page, dynalite_server
from tests.browser_page import Browser
from tests.dynalite_server import Dynalite


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; each test opens its own page in it (tests/browser_page.py says how)."""
    if reason := browser_page.missing():
        pytest.skip(reason)
    with browser_page.browser() as unpacked:
        yield unpacked


@pytest.fixture(scope="session")
def dynalite() -> Iterator[Dynalite]:
    """One server for all the tests that need it; each takes a table of its own."""
    with dynalite_server.dynalite() as server:
        yield server
