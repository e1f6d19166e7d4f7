"""Settings of all tests."""

from hypothesis import settings

# A busy machine is no failure of the code under test: no deadlines. The same examples in every run, so that
# what passes here passes there; `--hypothesis-profile explore` (make test-long) looks for new ones.
settings.register_profile("fixed", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("fixed")
