"""A token endpoint on a real socket, behind TLS: whom it is trusted by, and where our secret goes."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import pytest

from chatbot.emulator.server import authority
from chatbot.errors import ProtocolError, Unreachable
from chatbot.model import UserId
from chatbot.service.acs import AcsResource
from tests.support.loopback import Answered, Site, site

BOT = UserId("8:acs:bot")
GIVEN = Answered(200, {"token": "t", "expiresOn": "2999-01-01T00:00:00Z"})


async def ask(endpoint: Site, ca_file: Path | None = None) -> str:
    async with AcsResource("https://acs.example", ca_file=ca_file) as resource:
        tokens = resource.endpoint_tokens(f"{endpoint.url}/acs", BOT, authorization="Bearer ours")
        return (await tokens.get_token()).token


async def test_its_certificate_is_trusted_by_the_authorities_of_the_service(tmp_path: Path) -> None:
    trust = await anyio.to_thread.run_sync(authority, tmp_path)
    context = await anyio.to_thread.run_sync(trust.server_context, ["127.0.0.1"])
    with site(lambda _: GIVEN, tls=context) as endpoint:
        assert await ask(endpoint, trust.ca_file) == "t"

        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await ask(endpoint)

    assert [asked.headers["Authorization"] for asked in endpoint.requests] == ["Bearer ours"]


async def test_a_redirect_is_not_followed_and_our_secret_goes_nowhere_else() -> None:
    with (
        site(lambda _: GIVEN) as elsewhere,
        site(lambda _: Answered(307, headers={"Location": elsewhere.url})) as it,
        pytest.raises(ProtocolError, match="the service answered 307"),
    ):
        await ask(it)

    assert elsewhere.requests == []
