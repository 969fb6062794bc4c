"""A user's own endpoint gives out tokens by the contract that the module describes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatbot.errors import ConfigError, OutcomeUnknown, ProtocolError, ServiceError, Throttled, Unauthorized
from chatbot.model import UserId
from chatbot.service.acs import AcsResource
from chatbot.service.token_endpoint import read_token
from chatbot.testing.transport import AsgiMessage, AsgiTransport

BOT = UserId("8:acs:bot")


class Endpoint:
    """Answers with what it was made with, and keeps the request."""

    def __init__(self, body: str, status: int = 200, **headers: str) -> None:
        self.body = body.encode()
        self.status = status
        self.answered = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.method = self.url = ""
        self.headers: dict[bytes, bytes] = {}
        self.asked: Any = None

    async def __call__(self, scope: AsgiMessage, receive: Any, send: Any) -> None:
        self.method, self.headers = scope["method"], dict(scope["headers"])
        self.url = f"{scope['scheme']}://{scope['server'][0]}{scope['path']}"
        self.asked = json.loads((await receive())["body"])
        await send({"type": "http.response.start", "status": self.status, "headers": self.answered})
        await send({"type": "http.response.body", "body": self.body})

    async def token(self, **options: Any) -> str:
        async with AcsResource("https://acs.example", transport=AsgiTransport(self)) as resource:
            tokens = resource.endpoint_tokens("https://tokens.example/issue", BOT, **options)
            return (await tokens.get_token()).token


async def test_it_is_asked_for_the_user_and_the_scope() -> None:
    endpoint = Endpoint('{"token": "t", "expiresOn": "2999-01-01T00:00:00Z"}')

    token = await endpoint.token(authorization="Bearer own-secret")

    assert token == "t"
    assert (endpoint.method, endpoint.url) == ("POST", "https://tokens.example/issue")
    assert endpoint.asked == {"user": "8:acs:bot", "scopes": ["chat"]}
    assert endpoint.headers[b"authorization"] == b"Bearer own-secret"
    assert endpoint.headers[b"content-type"] == b"application/json"


async def test_without_an_authorization_of_its_own_it_gets_none() -> None:
    endpoint = Endpoint('{"token": "t", "expiresOn": 32472144000}')

    await endpoint.token()

    assert b"authorization" not in endpoint.headers


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (429, Throttled), (500, OutcomeUnknown), (204, ProtocolError)]
)
async def test_its_refusals_are_sorted_and_name_it(status: int, kind: type[ServiceError]) -> None:
    with pytest.raises(kind, match=r"get a token of 8:acs:bot from tokens\.example"):
        await Endpoint("", status).token()


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"token": 5}', '{"token": "a b"}', '{"token": "opaque"}'])
async def test_an_answer_that_breaks_the_contract_is_refused(body: str) -> None:
    with pytest.raises(ProtocolError, match="from tokens"):
        await Endpoint(body).token()


def test_a_missing_expiry_is_read_from_the_token() -> None:
    token = read_token({"token": "e30.eyJleHAiOiAyMDAwfQ.x"})

    assert token.expires_on == 2000


@pytest.mark.parametrize("url", ["http://tokens.example/issue", "tokens.example", "https://me:secret@tokens.example"])
async def test_an_address_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    async with AcsResource("https://acs.example", transport=AsgiTransport(Endpoint(""))) as resource:
        with pytest.raises(ConfigError) as caught:
            resource.endpoint_tokens(url, BOT)

    assert "secret" not in str(caught.value)
