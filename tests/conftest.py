"""Settings of all tests."""

from hypothesis import settings

# A busy machine is no failure of the code under test.
settings.register_profile("fairlane", deadline=None, print_blob=True)
settings.load_profile("fairlane")
