"""How hypothesis runs: without looking at the clock, since another program may have the processor just then."""

from hypothesis import HealthCheck, settings

settings.register_profile("mailgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mailgate")
