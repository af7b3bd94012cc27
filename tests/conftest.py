"""For every test: what this machine's shell has set must not decide what they find."""

import os

from local.machine import leave_out_own_settings

leave_out_own_settings(os.environ)
