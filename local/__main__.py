"""`python -m local serve` and `python -m local demo`."""

from __future__ import annotations

import os
import sys

from local.machine import leave_out_own_settings
from local.serve_files import FileError
from local.serve_options import OptionError, parser, read_options


def main() -> int:
    """Answers the exit status: 2 when it was called wrongly."""
    arguments = vars(parser().parse_args())
    leave_out_own_settings(os.environ)
    if arguments.pop("command") == "demo":
        from local.demo import main as demo

        return demo()
    from local.serve import serve

    try:
        options = read_options(arguments, os.environ)
    except (FileError, OptionError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
