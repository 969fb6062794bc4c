"""A machine with a managed identity of Azure's: what the endpoint that it asks for tokens answers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from importlib.util import find_spec

import pytest

from tests.loopback import Answered, Asked

RESOURCE = "https://communication.azure.com/"


def entra_token(**claims: object) -> str:
    """A token as Entra gives one out: nobody but Entra could check its signature."""
    body = {"aud": RESOURCE, "exp": int(time.time()) + 3600, **claims}
    return ".".join([*(_packed(part) for part in ({"alg": "RS256", "typ": "JWT"}, body)), "c2ln"])


def _packed(part: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def metadata(asked: Asked) -> Answered:
    """What the endpoint of managed identities answers."""
    resource = asked.query["resource"]
    times = {"expires_in": "86400", "expires_on": str(int(time.time()) + 86_400)}
    return Answered(200, {"access_token": entra_token(), **times, "resource": resource, "token_type": "Bearer"})


needs_azure_identity = pytest.mark.skipif(
    find_spec("azure.identity") is None, reason="azure-identity is not installed: pip install 'chatbot[entra]'"
)
