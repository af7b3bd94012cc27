"""A headless Chromium for tests that look at a page: what npm brought, driven by Playwright.

    def test_the_page_says_hello(browser: Browser) -> None:
        with browser.page(allowed=("http://127.0.0.1:3000/",)) as seen:
            seen.page.goto("http://127.0.0.1:3000/docs")
            seen.page.get_by_role("button", name="Vend").click()
            expect(seen.page.get_by_text("hello")).to_be_visible()
            seen.assert_no_complaints()

`browser` is a fixture of tests/e2e; a page takes 0.7 s, and the first ever 2 s more. Playwright runs for as long as a page is
open and no longer: its event loop belongs to the thread, and other tests want theirs.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

FOLDER = Path(__file__).with_name("browser")
UNPACK_SECONDS = 60
ACTION_SECONDS = 10
# As root, and in most containers, Chromium has no sandbox to run in; it is only ever shown our own pages.
ARGUMENTS = ("--no-sandbox",)


@dataclass
class Seen:
    """An open page, and what went wrong on it: `complaints` holds console errors and warnings, uncaught exceptions and
    requests that were not allowed, in order, one line each.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)

    def assert_no_complaints(self) -> None:
        """Fails with all of them."""
        assert not self.complaints, "\n".join(self.complaints)


@dataclass(frozen=True)
class Browser:
    """An unpacked Chromium, and the environment variables it runs with."""

    executable: Path
    variables: dict[str, str]

    @contextmanager
    def page(self, *, allowed: Sequence[str] = (), width: int = 1280, height: int = 800) -> Iterator[Seen]:
        """One page in a browser of its own, closed afterwards. It reaches URLs that start with one of `allowed`, no others.

        It is in a time zone that is not UTC, so that a page which shows local time is found out.
        """
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=self.executable, args=list(ARGUMENTS), env=dict(self.variables)
            )
            try:
                context = chromium.new_context(
                    viewport={"width": width, "height": height},
                    timezone_id="Asia/Kathmandu",
                    locale="en-GB",
                    service_workers="block",
                )
                context.set_default_timeout(ACTION_SECONDS * 1000)
                seen = Seen(context.new_page())

                def decide(route: Route) -> None:
                    if route.request.url.startswith(tuple(allowed)):
                        route.continue_()
                    else:
                        seen.complaints.append(f"not allowed: {route.request.method} {route.request.url}")
                        route.abort()

                context.route("**/*", decide)
                seen.page.on("console", lambda message: _note(seen, message.type, message.text))
                seen.page.on("pageerror", lambda error: seen.complaints.append(f"uncaught: {error}"))
                yield seen
            finally:
                chromium.close()


def _note(seen: Seen, kind: str, text: str) -> None:
    if kind in {"error", "warning"}:
        seen.complaints.append(f"{kind}: {text}")


def missing() -> str | None:
    """Why there is no browser here, or None where there is one."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the packaged Chromium runs on x86_64 Linux only"
    return None


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, with a home of this run's own that is gone afterwards."""
    node = shutil.which("node")
    assert node, "node is needed to unpack Chromium"
    assert (FOLDER / "node_modules").is_dir(), (
        "Chromium is not installed: make test does it, or npm ci --ignore-scripts in tests/browser"
    )
    unpacked = _unpacked(node)
    with tempfile.TemporaryDirectory(prefix="vending-browser-", ignore_cleanup_errors=True) as home:
        variables = {"HOME": home, "TMPDIR": home, "PATH": os.defpath}
        variables["FONTCONFIG_FILE"] = str(_fonts(unpacked, Path(home)))
        if _lacks_libraries(unpacked / "chromium"):
            variables["LD_LIBRARY_PATH"] = str(unpacked / "al2023/lib")
        yield Browser(unpacked / "chromium", variables)


def _unpacked(node: str) -> Path:
    """The package's content (200 MB), unpacked once; `npm ci` sweeps it away with what it came from."""
    unpacked = FOLDER / "node_modules/.unpacked"
    if unpacked.is_dir():
        return unpacked
    with tempfile.TemporaryDirectory(dir=unpacked.parent, prefix=".unpacking-", ignore_cleanup_errors=True) as folder:
        names = ("chromium.br", "fonts.tar.br", "al2023.tar.br")
        subprocess.run([node, str(FOLDER / "unpack.mjs"), folder, *names], check=True, timeout=UNPACK_SECONDS)
        try:
            Path(folder).rename(unpacked)  # whole, or not at all
        except OSError:
            assert unpacked.is_dir(), "another run at the same time was first, or else"
    return unpacked


def _fonts(unpacked: Path, home: Path) -> Path:
    # The package's own file looks in /tmp/fonts. No font of the machine's: pages then look alike everywhere.
    file = home / "fonts.conf"
    folders = f"<dir>{unpacked / 'fonts'}</dir><cachedir>{home / 'font-cache'}</cachedir>"
    file.write_text(f"<fontconfig>{folders}</fontconfig>\n")
    return file


def _lacks_libraries(executable: Path) -> bool:
    """Whether this machine lacks libnss3 and its like, which the package brings along for Amazon Linux."""
    found = subprocess.run(["ldd", str(executable)], capture_output=True, text=True, timeout=10, check=False)
    return "not found" in found.stdout
