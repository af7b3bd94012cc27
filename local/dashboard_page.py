"""The dashboard as one HTML file that needs nothing else: plotly.js is in it, and its policy forbids any request.

What comes from a log is a stranger's: it enters the page only within one JSON element, with each character that could end it
escaped, and is escaped once more for Plotly, which would take tags in a name for formatting. No script runs but our two.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json

from local.dashboard_definition import WIDTH, Panel
from local.dashboard_plot import FONTS, Drawn, plots

ROW_PIXELS = 58

_BOOT = """
for (const panel of JSON.parse(document.getElementById("panels").textContent))
    Plotly.newPlot(panel.id, panel.data, panel.layout, {displaylogo: false, displayModeBar: false, responsive: true});
"""
_STYLE = f"""
body {{ margin: 0; padding: 20px 24px; background: #f3f5f7; color: #16191f; font: 14px/1.4 {FONTS} }}
header {{ margin: 0 4px 16px }}
h1 {{ margin: 0; font-size: 20px }}
p {{ margin: 2px 0 0; color: #545b64 }}
main {{ display: grid; grid-template-columns: repeat({WIDTH}, 1fr); grid-auto-rows: {ROW_PIXELS}px; gap: 0 }}
section {{ margin: 4px; background: #fff; border: 1px solid #d5dbdb; border-radius: 6px; display: flex; flex-direction: column; min-width: 0; min-height: 0 }}
h2 {{ margin: 0; padding: 10px 14px 0; font-size: 14px }}
.plot {{ flex: 1; min-height: 0 }}
@media (max-width: 900px) {{ section {{ grid-column: 1 / -1 !important; grid-row: span 6 !important }} }}
"""  # noqa: E501


def render(name: str, drawn: Drawn, *, about: str) -> str:
    """The page. `about` is one sentence below the title, plain text."""
    from plotly.offline import get_plotlyjs

    figures = [{"id": f"panel-{number}", **plot} for number, plot in enumerate(plots(drawn))]
    library = get_plotlyjs()
    policy = f"default-src 'none'; script-src {_hash(library)} {_hash(_BOOT)}; style-src 'unsafe-inline'; img-src data: blob:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(name)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{html.escape(name)}</h1><p>{html.escape(about)}</p></header>
<main>
{"".join(_section(f"panel-{number}", panel) for number, (panel, _) in enumerate(drawn))}</main>
<script type="application/json" id="panels">{_embedded(figures)}</script>
<script>{library}</script>
<script>{_BOOT}</script>
</body>
</html>
"""


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(value: object) -> str:
    """JSON in ASCII that cannot end the element it stands in."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _section(identifier: str, panel: Panel) -> str:
    place = f"grid-column: {panel.x + 1} / span {panel.width}; grid-row: {panel.y + 1} / span {panel.height}"
    title = html.escape(panel.title)
    return f'<section style="{place}"><h2>{title}</h2><div class="plot" id="{identifier}"></div></section>\n'
