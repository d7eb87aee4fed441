"""One profile for all property tests: the same examples at every run, and no time limit on a busy machine."""

from hypothesis import settings

settings.register_profile("ucvgl", deadline=None, derandomize=True)
settings.load_profile("ucvgl")
