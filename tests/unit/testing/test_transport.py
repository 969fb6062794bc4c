"""The in-process transport is, for the SDK's own clients, a network with a service at its end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ServiceRequestError, ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport import HttpRequest

from chatbot.testing.transport import AsgiMessage, AsgiTransport

URL = "http://127.0.0.1:7/identities/8%3Aacs%3Aann?api-version=1&q=a%20b"


class Recorder:
    """An application that answers everything alike and remembers what it was asked."""

    def __init__(self, *chunks: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.chunks = chunks or (b"",)
        self.status = status
        self.headers = headers
        self.scope: AsgiMessage = {}
        self.request: AsgiMessage = {}
        self.after: AsgiMessage = {}

    async def __call__(self, scope: AsgiMessage, receive: Any, send: Any) -> None:
        self.scope, self.request = scope, await receive()
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        for number, chunk in enumerate(self.chunks, 1):
            await send({"type": "http.response.body", "body": chunk, "more_body": number < len(self.chunks)})
        self.after = await receive()


def raising(error: Exception) -> Any:
    async def app(scope: AsgiMessage, receive: Any, send: Any) -> None:
        raise error

    return app


async def test_the_application_sees_method_path_query_headers_and_body() -> None:
    app = Recorder()
    request = HttpRequest("POST", URL, headers={"X-Own": "1"})
    request.set_json_body({"text": "é"})

    await AsgiTransport(app).send(request)

    assert app.scope["method"] == "POST"
    assert app.scope["path"] == "/identities/8:acs:ann"
    assert app.scope["raw_path"] == b"/identities/8%3Aacs%3Aann"
    assert app.scope["query_string"] == b"api-version=1&q=a%20b"
    assert app.scope["server"] == ("127.0.0.1", 7)
    assert app.request == {"type": "http.request", "body": b'{"text": "\\u00e9"}', "more_body": False}
    headers = dict(app.scope["headers"])
    assert headers[b"host"] == b"127.0.0.1:7"
    assert headers[b"x-own"] == b"1"
    assert headers[b"content-length"] == b"18"


async def test_an_answer_in_several_chunks_arrives_whole() -> None:
    app = Recorder(b'{"a"', b":1}", status=201, headers=((b"Content-Type", b"application/json"), (b"x-a", b"1")))

    response = await AsgiTransport(app).send(HttpRequest("GET", URL))

    assert (response.status_code, response.reason) == (201, "Created")
    assert response.text() == '{"a":1}'
    assert response.content_type == "application/json"
    assert response.headers["X-A"] == "1"


async def test_the_application_learns_that_the_client_left_only_after_its_answer() -> None:
    app = Recorder()

    await AsgiTransport(app).send(HttpRequest("GET", URL))

    assert app.after == {"type": "http.disconnect"}


async def test_a_refused_connection_is_a_request_that_never_arrived() -> None:
    with pytest.raises(ServiceRequestError):
        await AsgiTransport(raising(ConnectionRefusedError("down"))).send(HttpRequest("GET", URL))


async def test_a_reset_connection_is_an_answer_that_got_lost() -> None:
    with pytest.raises(ServiceResponseError):
        await AsgiTransport(raising(ConnectionResetError("reset"))).send(HttpRequest("GET", URL))


async def test_an_answer_slower_than_the_read_timeout_is_given_up() -> None:
    async def silent(scope: AsgiMessage, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    with pytest.raises(ServiceResponseTimeoutError):
        await AsgiTransport(silent).send(HttpRequest("GET", URL), read_timeout=0.001)


async def test_a_defect_of_the_application_is_not_reported_as_a_network_failure() -> None:
    with pytest.raises(KeyError):
        await AsgiTransport(raising(KeyError("bug"))).send(HttpRequest("GET", URL))


async def test_an_application_that_does_not_answer_is_a_defect() -> None:
    async def mute(scope: AsgiMessage, receive: Any, send: Any) -> None:
        return None

    with pytest.raises(RuntimeError, match="without a complete response to GET"):
        await AsgiTransport(mute).send(HttpRequest("GET", URL))


async def test_the_sdk_s_identity_client_runs_over_it() -> None:
    app = Recorder(b'{"identity":{"id":"8:acs:ann"}}', status=201, headers=((b"content-type", b"application/json"),))
    client = CommunicationIdentityClient(
        "http://127.0.0.1:7", AzureKeyCredential("a2V5"), transport=AsgiTransport(app), retry_total=0
    )

    async with client:
        user = await client.create_user()

    assert user.raw_id == "8:acs:ann"
    assert app.scope["path"] == "/identities"
    assert dict(app.scope["headers"])[b"authorization"].startswith(b"HMAC-SHA256 SignedHeaders=")
