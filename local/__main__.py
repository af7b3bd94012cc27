"""`python -m local serve`, `python -m local demo`, `python -m local rotate` and `python -m local dashboard`."""

from __future__ import annotations

import os
import sys

from local.machine import leave_out_own_settings
from local.serve_files import FileError
from local.serve_options import OptionError, parser, read_dashboard_options, read_options


def main() -> int:
    """Answers the exit status: 2 when it was called wrongly."""
    arguments = vars(parser().parse_args())
    if arguments["command"] == "rotate":
        from local.rotation import main as rotate

        return rotate(arguments["credential"], os.environ)  # before .local/env's settings are left out
    leave_out_own_settings(os.environ)
    command = arguments.pop("command")
    if command == "demo":
        from local.demo import main as demo

        return demo()
    if command == "dashboard":
        from local.dashboard import main as dashboard

        return dashboard(*read_dashboard_options(arguments, os.environ))
    from local.serve import serve

    try:
        options = read_options(arguments, os.environ)
    except (FileError, OptionError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
