"""Which authentication in a bots.yaml names, and where the tokens of its bots come from then."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import pytest

from chatbot.config import Config, load_config
from chatbot.errors import ConfigError
from chatbot.model import UserId
from chatbot.runtime.connection import Connection
from chatbot.runtime.run_directory import RunInfo
from chatbot.service.acs import AcsResource
from chatbot.service.credentials import RenewingTokens, StaticToken
from chatbot.service.entra import Entra

ENDPOINT = "https://my.communication.azure.com"
KEYED = f"endpoint={ENDPOINT}/;accesskey=c2VjcmV0"
USER = "8:acs:a_b"


def config_of(tmp_path: Path, service: str, bot: str = "") -> Config:
    text = f"version: 1\nservice: {service}\nca_file: ca.pem\nbots: {{desk: {{plugins: [p]{bot}}}}}\n"
    (tmp_path / "bots.yaml").write_text(text)
    return load_config(tmp_path / "bots.yaml", {"T": "visible-token", "A": "Bearer visible"})


@pytest.mark.parametrize(
    ("service", "bot", "authentication", "can_issue_tokens"),
    [
        (KEYED, "", "with its access key", True),
        (f"{{endpoint: '{ENDPOINT}', entra: cli}}", "", "by Microsoft Entra ID (cli)", True),
        (
            f"{{endpoint: '{ENDPOINT}', token_endpoint: {{url: 'https://t.example/?code=visible'}}}}",
            f", user: '{USER}'",
            "with tokens from t.example",
            False,
        ),
        (f"{{endpoint: '{ENDPOINT}'}}", f", user: '{USER}', token: !secret env:T", "with a token for each bot", False),
    ],
)
def test_the_resource_is_the_same_whichever_way_leads_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, bot: str, authentication: str, can_issue_tokens: bool
) -> None:
    monkeypatch.setattr("chatbot.service.entra.find_spec", lambda _name: True)  # whatever is installed here

    connection = Connection.of(config_of(tmp_path, service, bot), {})

    assert (connection.endpoint, connection.resource) == (ENDPOINT, "my.communication.azure.com")
    assert connection.ca_file == tmp_path / "ca.pem"
    assert (connection.authentication, connection.can_issue_tokens) == (authentication, can_issue_tokens)
    assert connection.remedy
    assert "visible" not in repr(connection)
    assert "c2VjcmV0" not in repr(connection)


async def test_tokens_are_issued_asked_for_or_given(tmp_path: Path) -> None:
    user = UserId(USER)
    async with AcsResource(ENDPOINT, access_key="c2VjcmV0") as resource:
        keyed = Connection(ENDPOINT, "my", access_key="c2VjcmV0")
        assert isinstance(keyed.tokens(resource, user), RenewingTokens)
        assert isinstance(Connection(ENDPOINT, "my", entra=Entra("cli")).tokens(resource, user), RenewingTokens)

        service = f"{{endpoint: '{ENDPOINT}'}}"
        config = await anyio.to_thread.run_sync(config_of, tmp_path, service, f", user: '{USER}', token: !secret env:T")
        given = Connection(ENDPOINT, "my")
        assert isinstance(given.tokens(resource, user, config.bots["desk"]), StaticToken)
        with pytest.raises(ConfigError, match="there is no token for 8:acs:a_b"):
            given.tokens(resource, user)


def test_what_an_authentication_method_lacks_on_this_machine_is_reported_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatbot.service.entra.find_spec", lambda _name: True)
    config = config_of(tmp_path, f"{{endpoint: '{ENDPOINT}', entra: workload-identity}}")

    with pytest.raises(
        ConfigError, match=r"bots\.yaml:2:66: service\.entra: a workload identity needs AZURE_TENANT_ID"
    ):
        Connection.of(config, {})


def test_a_daemon_without_a_key_has_published_none() -> None:
    info = RunInfo(1, ENDPOINT, None, "my.communication.azure.com")

    assert Connection.to_running(info) == Connection(ENDPOINT, "my.communication.azure.com")
