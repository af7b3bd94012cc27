"""One thin file a Lambda function: translate in, one call, translate out.

Python's garbage collector rests while one starts: imports make a hundred thousand objects and hardly any garbage, and to look
through them time and again is a tenth of a cold start. `started` ends each init.
"""

from __future__ import annotations

import gc

gc.disable()


def started() -> None:
    """Let the collector work, but on nothing that is there already: that stays, and no vend waits while it is looked at."""
    gc.freeze()
    gc.enable()
