"""The dashboard's page, in a real browser and without any network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import pytest

from local import dashboard
from local.dashboard_plot import NOTHING, plots
from tests.browser_page import Browser, Seen
from tests.measured import NOON, by_code, by_credential, emf

HOSTILE = 'sandbox/<img src=x onerror="hacked=1"><b>&lt;x</b>'


def a_log() -> Iterator[str]:
    """A quarter of an hour of two credentials, one of them with a pool, and of somebody who thinks up names."""
    for minute in range(15):
        at = NOON + 60 * minute
        yield by_credential({"TokensVended": 3, "ExchangeLatency": [20, 30, 200 + minute]}, at=at)
        yield by_credential({"TokensVended": minute, "PoolHit": minute, "PoolMiss": 1}, "sandbox/tenant-b", "api", at)
        yield by_credential({"PoolDepth": 20 - minute, "PoolTarget": 20}, "sandbox/tenant-b", "refill", at)
        yield by_credential({"BudgetUsedPercent": 6 * minute}, at=at)
        yield by_code("RequestsRefused", "not_authorized", HOSTILE, at=at)
        yield by_code("RequestsRefused", "over_budget", at=at)
    yield by_credential({"KeyAgeDays": 12.5, "CredentialHealthy": 1}, service="probe")
    yield by_credential({"KeyAgeDays": 95, "CredentialHealthy": 0}, "sandbox/tenant-b", "probe")
    yield emf({"TokensVended": 1}, {"service": "vend"})[:-20] + "\n"


LINES = {
    "Tokens vended, by credential": 2,
    "Requests refused, by credential": 2,
    "Exchange latency": 2,
    "Tokens asked for that did not come": 0,
    "Pool depth and target": 2,
    "Pool hit rate, and misses by credential": 2,
    "Budget use, of the fullest budget": 1,
    "Table and refill failures": 0,
    "Age of keys": 2,
    "Credentials that the probe finds healthy": 2,
}
"""What each panel of the template shows of that log."""


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Seen]:
    log, page = tmp_path / "functions.log", tmp_path / "dashboard.html"
    log.write_text("".join(a_log()), encoding="utf-8")
    assert dashboard.main(log, page) == 0
    with browser.page(allowed=(page.as_uri(),), width=1400, height=1900) as seen:
        seen.page.goto(page.as_uri())
        yield seen


def test_each_panel_of_the_template_is_a_plot_of_its_lines_and_no_name_becomes_html(shown: Seen) -> None:
    page = shown.page
    page.wait_for_function(
        "document.querySelectorAll('section .main-svg').length >= document.querySelectorAll('section').length"
    )
    found = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("section")].map(section => [
            section.querySelector("h2").textContent, section.querySelector(".js-plotly-plot").data.length]))"""
    )
    assert found == LINES
    assert list(found) == [panel.title for panel in dashboard.panels_of_template()[1]], "in CloudWatch's order"

    marks = page.locator("section", has_text="Exchange latency").locator(".scatterlayer .point")
    assert marks.count() == 30, "p50 and p99 of 15 minutes are drawn, not only in the data"
    assert page.locator("section", has_text="Tokens vended").locator(".barlayer .point").count() == 30
    assert page.get_by_text(NOTHING).count() == list(LINES.values()).count(0)
    assert page.locator("section", has_text="Age of keys").locator(".shapelayer path").count() == 1, "the limit"

    legend = page.locator("section", has_text="Requests refused").locator(".legendtext").all_text_contents()
    assert f"{HOSTILE} by vend: not_authorized" in legend, "to the letter"
    assert page.evaluate("[typeof hacked, document.querySelectorAll('img, a').length]") == ["undefined", 0]

    hours = page.locator("section", has_text="Budget use").locator(".xtick text").all_text_contents()
    assert any(text.startswith("12:0") for text in hours), f"the browser is in Kathmandu, the page in UTC: {hours}"

    boxes = [box for section in page.locator("section").all() if (box := section.bounding_box())]
    assert all(box["width"] > 500 and box["height"] > 250 for box in boxes)
    shown.assert_no_complaints()


def test_plotly_knows_every_property_that_a_panel_uses(tmp_path: Path) -> None:
    log = tmp_path / "functions.log"
    log.write_text("".join(a_log()), encoding="utf-8")
    for plot in plots(dashboard.draw(log).drawn):
        go.Figure(plot)  # raises ValueError otherwise; plotly.js would ignore it
