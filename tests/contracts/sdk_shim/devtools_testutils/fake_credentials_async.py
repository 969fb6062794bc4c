"""A name that the tests import, and that no live run uses."""


class AsyncFakeCredential:
    """Not used: everything is live."""
