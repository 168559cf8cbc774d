"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples everywhere, however long one of them takes: a failure is the code's, not the machine's.
settings.register_profile("r1ray", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("r1ray")
