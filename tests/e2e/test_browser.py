"""The browser that other tests look with: it must notice what they would otherwise overlook."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser_page import Browser


def test_it_reaches_nothing_but_what_is_allowed_and_tells_of_all_that_goes_wrong(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        """<p>é</p><script>
        console.error("said");
        fetch("http://127.0.0.1:9/elsewhere").catch(() => setTimeout(() => { document.title = "done"; throw new Error("thrown"); }));
        </script>""",
        encoding="utf-8",
    )
    with browser.page(allowed=(page.as_uri(),)) as seen:
        seen.page.goto(page.as_uri())
        seen.page.wait_for_function("document.title === 'done'")
        with pytest.raises(AssertionError) as told:
            seen.assert_no_complaints()
    for part in ("error: said", "not allowed: GET http://127.0.0.1:9/elsewhere", "uncaught: thrown"):
        assert part in str(told.value)
