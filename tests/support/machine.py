"""A machine with a managed identity of Azure's: what the endpoint that it asks for tokens answers."""

from __future__ import annotations

import time
from importlib.util import find_spec

import pytest

from chatbot.emulator import World
from tests.support.loopback import Answered, Asked

RESOURCE = "https://communication.azure.com/"


KEY = "c2VjcmV0LW9mLXRoZS1lbXVsYXRvcg=="
"""The access key of an emulator that takes the tokens of `entra_token`."""


def entra_token(*, exp: int | None = None, aud: str = RESOURCE) -> str:
    """A token as Entra gives one out; the emulator takes those that it has issued in Entra's place."""
    return World(access_key=KEY).identities.issue_entra(exp or int(time.time()) + 3600, aud)


def metadata(asked: Asked) -> Answered:
    """What the endpoint of managed identities answers."""
    resource = asked.query["resource"]
    times = {"expires_in": "86400", "expires_on": str(int(time.time()) + 86_400)}
    return Answered(200, {"access_token": entra_token(), **times, "resource": resource, "token_type": "Bearer"})


needs_azure_identity = pytest.mark.skipif(
    find_spec("azure.identity") is None, reason="azure-identity is not installed: pip install 'chatbot-acs[entra]'"
)
