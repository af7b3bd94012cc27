"""The dashboard of the template, and the same picture drawn from a local stack's log."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from local import dashboard, dashboard_page
from local.__main__ import main as command
from local.dashboard_definition import WIDTH, DashboardError, Panel, read_panels
from local.dashboard_log import MetricId, read_lines
from local.dashboard_math import evaluate
from local.dashboard_page import render
from local.dashboard_plot import LONGEST_NAME, NOTHING, plain, plots
from tests.measured import NOON, by_code, by_credential, emf
from tests.stack import deploy
from vending.record.metrics import VendingMetrics

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)> <a href="javascript:alert(1)">a</a> <b>&lt;'


@pytest.fixture(scope="module")
def panels() -> tuple[Panel, ...]:
    return dashboard.panels_of_template()[1]


def body(*metrics: list[Any], **properties: Any) -> str:
    """A dashboard of one widget."""
    widget = {"type": "metric", "x": 0, "y": 0, "width": 12, "height": 6}
    known = {"title": "Panel", "region": "eu-west-1", "period": 60, "metrics": list(metrics)}
    return json.dumps({"widgets": [widget | {"properties": known | properties}]})


def panel(*metrics: list[Any], **properties: Any) -> Panel:
    (read,) = read_panels(body(*metrics, **properties))
    return read


def drawn(lines: Iterable[str], *metrics: list[Any], **properties: Any) -> dict[str, list[tuple[int, float]]]:
    """Name of a line to its points, each the seconds since noon and the value."""
    series = evaluate(panel(*metrics, **properties), read_lines(lines))
    return {line.name: [(start - NOON, value) for start, value in line.values.items()] for line in series}


def search(name: str, statistic: str = "Sum", schema: str = "service,credential", **options: Any) -> list[Any]:
    expression = f"SEARCH('{{ImburseVending,{schema}}} MetricName=\"{name}\"', '{statistic}')"
    return [{"expression": expression, "label": "${PROP('Dim.credential')} by ${PROP('Dim.service')}", **options}]


# The template's


def test_its_widgets_fill_rows_of_the_grid_and_none_lies_on_another(panels: tuple[Panel, ...]) -> None:
    taken = [
        (column, row)
        for one in panels
        for column in range(one.x, one.x + one.width)
        for row in range(one.y, one.y + one.height)
    ]
    assert len(taken) == len(set(taken))
    assert {column for column, _ in taken} == set(range(WIDTH))
    assert len(taken) == WIDTH * (1 + max(row for _, row in taken)), "there is a hole"
    assert len({one.title for one in panels}) == len(panels)


def test_it_is_the_body_that_is_deployed(panels: tuple[Panel, ...]) -> None:
    deployed = deploy().properties("Dashboard")
    assert read_panels(deployed["DashboardBody"]) == panels
    assert json.loads(deployed["DashboardBody"])["widgets"][0]["properties"]["region"] == "eu-west-1"


def test_the_limit_of_a_keys_age_is_the_parameters() -> None:
    (age,) = (
        one for one in read_panels(deploy(KeyAgeLimitDays="30").properties("Dashboard")["DashboardBody"]) if one.limits
    )
    assert age.limits == (("limit", 30.0),)


def test_each_panel_shows_what_the_functions_really_write(panels: tuple[Panel, ...]) -> None:
    vend, probe, refill = (VendingMetrics(service) for service in ("vend", "probe", "refill"))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        notes = ["PoolHit", "PoolMiss", "PoolUnavailable", "BudgetUnavailable", "BrakeUnavailable"]
        vend.visit("sandbox/a", 2, [0.1, 0.2], secret_reads=1, notes=notes, budget_used_percent=50)
        vend.refused("sandbox/a", "not_authorized")
        vend.failed("sandbox/a", {"upstream_rejected": 3})
        refill.refill("sandbox/a", {"PoolDepth": 4, "PoolTarget": 5, "RefillFailed": 1})
        probe.probe("sandbox/a", {"CredentialHealthy": 1, "KeyAgeDays": 3.5}, [])
    measured = read_lines(f"f {line}" for line in out.getvalue().splitlines())
    assert measured.unreadable == 0
    lines = {one.title: [line.name for line in evaluate(one, measured)] for one in panels}
    assert lines == {
        "Tokens vended, by credential": ["sandbox/a by vend"],
        "Requests refused, by credential": ["sandbox/a by vend: not_authorized"],
        "Exchange latency": ["p50 by vend", "p99 by vend"],
        "Tokens asked for that did not come": ["sandbox/a by vend: upstream_rejected"],
        "Pool depth and target": ["depth of sandbox/a", "target of sandbox/a"],
        "Pool hit rate, and misses by credential": ["hit rate", "misses of sandbox/a by vend"],
        "Budget use, of the fullest budget": ["sandbox/a by vend"],
        "Table and refill failures": [
            "pool not reached by vend",
            "budgets not reached by vend",
            "brake not reached by vend",
            "refill of sandbox/a failed",
        ],
        "Age of keys": ["sandbox/a"],
        "Credentials that the probe finds healthy": ["sandbox/a"],
    }


# Reading the log


def test_a_metric_is_found_under_each_set_of_its_dimensions_and_each_value_counts() -> None:
    measured = read_lines([by_credential({"TokensVended": [1, 2.5], "SecretReads": 0})])
    by_service = frozenset({("service", "vend")})
    for dimensions in (by_service, by_service | {("credential", "sandbox/tenant-a")}):
        assert measured.samples[MetricId("ImburseVending", "TokensVended", dimensions)] == [(NOON, 1), (NOON, 2.5)]
    assert len(measured.samples) == 4


def test_what_is_no_metric_gives_nothing_and_is_not_counted_as_broken() -> None:
    measured = read_lines(
        ['f {"event": "audit"}\n', 'f {"level": "INFO"}\n', "f [ERROR] Boom Traceback {\n", "\n", "START\n", "f []\n"]
    )
    assert (measured.samples, measured.lines, measured.unreadable) == ({}, 5, 0)


@pytest.mark.parametrize(
    "broken",
    [
        by_credential({"TokensVended": 1})[:-30],
        by_credential({"TokensVended": float("nan")}),
        by_credential({"TokensVended": float("inf")}),
        by_credential({"TokensVended": True}),
        by_credential({"TokensVended": "1"}),  # type: ignore[dict-item]
        by_credential({"TokensVended": [1, None]}),  # type: ignore[list-item]
        by_credential({"TokensVended": 10**400}),
        by_credential({"TokensVended": {"a": 1}}),  # type: ignore[dict-item]
        by_credential({"TokensVended": 1}, at=-1),
        by_credential({"TokensVended": 1}, at=1e15),
        by_credential({"TokensVended": 1}, credential=7),  # type: ignore[arg-type]
        'f {"_aws": 7}',
        'f {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{}]}}',
        'f {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "N", "Dimensions": [["x"]], "Metrics": []}]}}',
        "f {" + '"a":[' * 100_000,
    ],
)
def test_a_broken_line_is_skipped_whole_and_counted(broken: str) -> None:
    good = by_credential({"SecretReads": 1})
    measured = read_lines([good, broken, good])
    assert (measured.lines, measured.unreadable) == (3, 1)
    assert {(metric.name, len(values)) for metric, values in measured.samples.items()} == {("SecretReads", 2)}


# CloudWatch's arithmetic


@pytest.mark.parametrize(
    ("statistic", "value"),
    [("Sum", 10), ("Average", 2.5), ("Minimum", 1), ("Maximum", 4), ("SampleCount", 4), ("p50", 2.5), ("p99", 3.97)],
)
def test_a_statistic_is_taken_a_period(statistic: str, value: float) -> None:
    log = [
        by_credential({"M": [4, 1]}),
        by_credential({"M": [3, 2]}, at=NOON + 59.9),
        by_credential({"M": 9}, at=NOON + 60),
    ]
    found = drawn(log, search("M", statistic))["sandbox/tenant-a by vend"]
    assert found == [(0, pytest.approx(value)), (60, 1 if statistic == "SampleCount" else 9)]


def test_a_search_finds_each_metric_with_just_these_dimensions() -> None:
    log = [
        by_credential({"M": 1}, "sandbox/b", "api"),
        by_credential({"M": 2}, "sandbox/a", "vend"),
        by_credential({"N": 3}, "sandbox/c"),
        by_code("M", "code"),
    ]
    assert list(drawn(log, search("M"))) == ["sandbox/a by vend", "sandbox/b by api"]
    assert list(drawn(log, search("M", schema="service", label="${PROP('Dim.service')}"))) == ["api", "vend"]
    assert drawn(log, search("M", schema="code")) == {}


def test_a_rate_is_computed_of_metrics_that_are_not_shown_themselves() -> None:
    hidden = {"stat": "Sum", "visible": False}
    metrics: list[list[Any]] = [
        [{"id": "rate", "label": "rate", "expression": "100 * FILL(hit, 0) / (FILL(hit, 0) + FILL(miss, 0))"}],
        ["ImburseVending", "Hit", "service", "vend", {"id": "hit", **hidden}],
        ["ImburseVending", "Miss", "service", "vend", {"id": "miss", **hidden}],
    ]
    log = [
        by_credential({"Hit": [1, 1], "Miss": 2}),
        by_credential({"Hit": 5}, at=NOON + 60),
        by_credential({"Miss": 5}, at=NOON + 120),
        by_credential({"Hit": 0, "Miss": 0}, at=NOON + 180),  # no point: nobody can divide by that
    ]
    assert drawn(log, *metrics) == {"rate": [(0, 50), (60, 100), (120, 0)]}


def test_a_term_without_a_value_gives_no_point_unless_it_is_filled() -> None:
    metrics = [["ImburseVending", name, "service", "vend", {"id": name.lower(), "visible": False}] for name in "AB"]
    log = [by_credential({"A": 1, "B": 2}), by_credential({"A": 1}, at=NOON + 60)]
    assert drawn(log, *metrics, [{"expression": "a + b - 1", "label": "l"}]) == {"l": [(0, 2)]}
    assert drawn(log, *metrics, [{"expression": "a - FILL(b, 3)", "label": "l"}]) == {"l": [(0, -1), (60, -2)]}


@pytest.mark.parametrize(
    "metric",
    [
        [{"expression": "SEARCH('{N} M', 'Sum', 60)"}],
        [{"expression": "SELECT SUM(M) FROM N"}],
        [{"expression": "a +"}],
        [{"expression": "a + 1"}],
        [{"expression": "__import__('os').getcwd()"}],
        [{"expression": "m ** 9"}],
        [{"expression": "IF(m > 1, m)"}],
        search("M", "p100.5"),
        search("M", "TM(1%:9%)"),
        ["ImburseVending", "M", "service", "vend", {"stat": "IQM"}],
    ],
)
def test_what_is_not_known_here_is_said_and_not_left_out(metric: list[Any]) -> None:
    known = ["ImburseVending", "M", "service", "vend", {"id": "m", "visible": False}]
    with pytest.raises(DashboardError, match=r"^Panel: "):
        drawn([by_credential({"M": 1})], known, metric)


@pytest.mark.parametrize(
    "document",
    [
        body([{"expression": "1", "color": "#f00"}]),
        body(["N", "M"], [".", "M2"]),
        body(view="pie"),
        body(liveData=True),
        '{"widgets": [{"type": "text"}]}',
        '{"widgets": 7}',
        "[]",
        "{",
        body(["N", "M", "odd"]),
    ],
)
def test_a_definition_that_cannot_be_drawn_is_said_and_not_left_out(document: str) -> None:
    with pytest.raises(DashboardError):
        read_panels(document)


# The page


def a_page(panels: tuple[Panel, ...], *lines: str) -> str:
    measured = read_lines(lines)
    return render("name", [(one, evaluate(one, measured)) for one in panels], about="about")


def without_library(page: str) -> str:
    scripts = re.split(r"(?<=</script>)\n", page)
    return "\n".join(script for script in scripts if len(script) < 1_000_000)


def test_nothing_of_a_log_becomes_html(panels: tuple[Panel, ...]) -> None:
    page = without_library(
        a_page(
            panels,
            by_credential({"TokensVended": 1, "BudgetUsedPercent": 5}, HOSTILE),
            by_code("RequestsRefused", HOSTILE, HOSTILE),
            emf({"ExchangeLatency": 1}, {"service": HOSTILE}),
        )
    )
    assert "alert(1)" in page, "it is shown"
    assert page.count("<script") == 2
    for part in ("<img", "<a ", "<b>", "script>alert", "&lt;img"):
        assert part not in page
    names = [line["name"] for plot in embedded(page) for line in plot["data"]]
    assert any("alert(1)" in name for name in names)
    assert not any(sign in name for name in names for sign in "<>"), "Plotly would take them for tags"


def embedded(page: str) -> list[dict[str, Any]]:
    match = re.search(r'<script type="application/json" id="panels">(.*?)</script>', page)
    assert match
    plots: list[dict[str, Any]] = json.loads(match[1])
    return plots


def test_the_data_cannot_end_the_element_it_stands_in_whatever_it_is() -> None:
    text = dashboard_page._embedded({"name": HOSTILE + "<!--\u2028\ud800&lt;"})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text)["name"] == HOSTILE + "<!--\u2028\ud800&lt;"


def test_the_page_asks_nobody_for_anything(panels: tuple[Panel, ...]) -> None:
    page = without_library(a_page(panels, by_credential({"TokensVended": 1})))
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert "'unsafe-inline'" not in page.partition("style-src")[0]


def test_a_log_without_metrics_gives_a_page_that_says_so(panels: tuple[Panel, ...]) -> None:
    for plot in plots([(one, []) for one in panels]):
        assert plot["data"] == []
        assert [said["text"] for said in plot["layout"]["annotations"]] == [NOTHING]


def test_times_are_utc_and_a_gap_stays_one() -> None:
    one = panel(search("M"))
    log = [by_credential({"M": 1}, at=NOON + seconds) for seconds in (0, 60, 600)]
    (plot,) = plots([(one, evaluate(one, read_lines(log)))])
    assert plot["data"][0]["x"] == [f"2026-01-01 12:{minute}:00" for minute in ("00", "01", "02", "10")]
    assert plot["data"][0]["y"] == [1, 1, None, 1]


def test_counts_are_bars_as_wide_as_their_period_and_lines_share_a_colour_by_credential() -> None:
    log = [by_credential({"A": 1, "B": 2}, credential) for credential in ("sandbox/a", "sandbox/b")]

    def lines(*, stacked: bool) -> list[dict[str, Any]]:
        one = panel(search("A"), search("B"), stacked=stacked)
        data: list[dict[str, Any]] = plots([(one, evaluate(one, read_lines(log)))])[0]["data"]
        return data

    assert {bar["type"] for bar in lines(stacked=True)} == {"bar"}
    assert len({bar["marker"]["color"] for bar in lines(stacked=True)}) == 4
    colours, dashes = zip(
        *((line["line"]["color"], line["line"]["dash"]) for line in lines(stacked=False)), strict=True
    )
    assert colours[:2] == colours[2:]
    assert len(set(colours)) == 2
    assert dashes == ("solid", "solid", "dash", "dash")


def test_all_panels_show_the_same_time(panels: tuple[Panel, ...]) -> None:
    measured = read_lines([by_credential({"TokensVended": 1}), by_credential({"KeyAgeDays": 1}, at=NOON + 7200)])
    shown = plots([(one, evaluate(one, measured)) for one in panels])
    (first, last), *others = {tuple(plot["layout"]["xaxis"]["range"]) for plot in shown}
    assert not others
    assert first < "2026-01-01 12:00:00"
    assert last == "2026-01-01 14:15:00"


@pytest.mark.parametrize("seconds", [0, 59, 3_600, 86_400, 40 * 86_400, 4_102_444_800 - NOON, -NOON])
def test_ticks_are_few_however_far_times_are_apart(seconds: int) -> None:
    one = panel(search("M"))
    log = [by_credential({"M": 1}), by_credential({"M": 1}, at=NOON + seconds)]
    (plot,) = plots([(one, evaluate(one, read_lines(log)))])
    assert max(abs(seconds), 900) / (plot["layout"]["xaxis"]["dtick"] / 1000) <= 9


def test_a_name_is_shown_to_the_letter_and_not_without_end() -> None:
    assert plain("a\n\x1b[31m\u202e\ud800") == "a��[31m��"
    assert len(plain("x" * 1000)) == LONGEST_NAME
    assert plain("<b>") == "&lt;b&gt;"


# The command

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def called(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["local", "dashboard", *arguments])
        monkeypatch.setattr("local.__main__.leave_out_own_settings", lambda _: None)
        return command()

    return called


def test_it_says_where_the_page_is_and_what_is_on_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "log", tmp_path / "new/page.html"
    log.write_bytes(by_credential({"TokensVended": 1}).encode() + b'f \xff\nf {"_aws"\n')
    assert run("--log", str(log), "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}\n")
    assert "3 lines, 2 metrics" in said
    assert "lines that could not be read, and were skipped: 1\n" in said
    assert re.search(r"Tokens vended, by credential +1 lines +1 points", said)
    assert re.search(r"Age of keys +0 lines +0 points", said)
    assert "<title>imburse-vending</title>" in out.read_text(encoding="utf-8")


def test_the_variables_of_make_are_read_and_options_win(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("DASHBOARD", str(tmp_path / "page.html"))
    assert run() == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: there is no log yet; `make serve` writes it\n"
    (tmp_path / "log").write_text("")
    assert run("--log", str(tmp_path / "log")) == 0
    assert (tmp_path / "page.html").exists()


def test_files_that_cannot_be_used_are_one_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("")
    assert run("--log", str(tmp_path), "--out", str(tmp_path / "page")) == 1
    assert run("--log", str(tmp_path / "log"), "--out", str(tmp_path)) == 1
    assert capsys.readouterr().err.count("\n") == 2
