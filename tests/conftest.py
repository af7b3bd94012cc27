"""For every test: neither what this machine's shell has set nor how busy it is must decide what they find."""

import os

from hypothesis import HealthCheck, settings

from local.machine import leave_out_own_settings

leave_out_own_settings(os.environ)

# No example fails because it took long, nor because it took long to think of. `--hypothesis-profile=mutation` tries the same
# examples each time: whether a mutant lives must not be luck.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("mutation", settings.get_profile("any machine"), derandomize=True)
settings.load_profile("any machine")
