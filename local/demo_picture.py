"""`make picture`: runs the demo and draws what it printed, as the picture that the README shows."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from rich.console import Console

from local.demo import main as demo
from local.machine import leave_out_own_settings

FILE = Path(__file__).with_name("demo.svg")
COLUMNS = 128

# Rich's own frame, without the font that it would have a reader's browser fetch from elsewhere.
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    """Answers the demo's own exit status; the picture is drawn only if every step did what it should."""
    leave_out_own_settings(os.environ)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    status = demo(console=console)
    if status == 0:
        console.save_svg(str(FILE), title="make demo", code_format=_FORMAT, unique_id="demo")
        print(f"wrote {FILE.name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
