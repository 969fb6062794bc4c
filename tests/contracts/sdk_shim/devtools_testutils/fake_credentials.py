"""A name that the tests import, and that no live run uses."""


class FakeTokenCredential:
    """Not used: everything is live."""
