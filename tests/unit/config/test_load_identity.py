"""How `service:` may say where tokens come from, and which users and tokens of bots go with it."""

import base64
import json
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from chatbot.cli.config import effective
from chatbot.config import Config, load_config
from chatbot.errors import ConfigError

ENDPOINT = "https://my.communication.azure.com"
KEYED = f"endpoint={ENDPOINT}/;accesskey=c2VjcmV0IGtleQ=="


def token_of(user: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"skypeid": user.removeprefix("8:"), "exp": 2_000_000_000}).encode())
    return f"e30.{claims.decode().rstrip('=')}.c2ln"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(service: str, bots: str = "desk: {plugins: [p]}", **environ: str) -> Config:
    Path("bots.yaml").write_text(f"version: 1\nservice: {service}\nbots:\n  {bots}\n")
    return load_config(Path("bots.yaml"), environ)


def refusals(service: str, bots: str = "desk: {plugins: [p]}", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(service, bots, **environ)
    return [problem.splitlines()[0].removeprefix("bots.yaml:") for problem in caught.value.problems]


def test_entra_is_a_string_or_a_mapping() -> None:
    word = load(f"{{endpoint: {ENDPOINT}, entra: managed-identity}}")
    mapping = load(f"{{endpoint: {ENDPOINT}, entra: {{credential: workload-identity, client_id: abc}}}}")

    assert word.service.entra.credential == "managed-identity"  # type: ignore[union-attr]
    assert mapping.service.entra.client_id == "abc"  # type: ignore[union-attr]
    assert not word.uses_emulator


def test_a_token_endpoint_goes_with_the_users_of_the_bots() -> None:
    service = f"{{endpoint: {ENDPOINT}, token_endpoint: {{url: https://t.example/x, authorization: !secret env:T}}}}"

    config = load(service, 'desk: {plugins: [p], user: "8:acs:a_1"}', T="Bearer s3cret")

    assert config.bots["desk"].user == "8:acs:a_1"
    assert config.service.token_endpoint.authorization.get_secret_value() == "Bearer s3cret"  # type: ignore[union-attr]
    assert "s3cret" not in repr(config) + config.model_dump_json()


def test_without_anybody_who_gives_tokens_out_each_bot_has_its_own() -> None:
    bots = 'desk: {plugins: [p], user: "8:acs:a_1", token: !secret env:T}'

    config = load(f"{{endpoint: {ENDPOINT}}}", bots, T=token_of("8:acs:a_1"))

    token = config.bots["desk"].token
    assert token is not None
    assert token.get_secret_value() == token_of("8:acs:a_1")


def test_a_user_may_be_given_where_the_bot_could_also_make_one() -> None:
    assert load(f'"{KEYED}"', 'desk: {plugins: [p], user: "8:acs:a_1"}').bots["desk"].user == "8:acs:a_1"


def test_every_mistake_of_the_service_has_its_place_and_its_remedy() -> None:
    assert refusals("{endpoint: http://my.communication.azure.com, entra: managed, foo: 1}") == snapshot(
        [
            "2:21: service.endpoint: http://my.communication.azure.com is not encrypted: use https://; http:// is for this machine only (127.0.0.1)",  # noqa: E501
            '2:63: service.entra: "managed" is not one of default, managed-identity, workload-identity, cli (did you mean managed-identity?)',  # noqa: E501
            "2:72: service.foo: unknown key (known keys: endpoint, entra, token_endpoint)",
        ]
    )
    assert refusals("{entra: {credential: cli, client_id: x}}") == snapshot(
        [
            "2:1: service.endpoint: this is missing",
            "2:18: service.entra: client_id has no effect with the Azure cli; remove it, or use another credential",
        ]
    )
    two = "entra: cli, token_endpoint: {url: ftp://x, authorization: Bearer visible}"
    assert refusals(f"{{endpoint: {ENDPOINT}, {two}}}") == snapshot(
        [
            "2:91: service.token_endpoint.url: the token endpoint is not an address such as https://HOST/PATH (with no name or password in it)",  # noqa: E501
            "2:115: service.token_endpoint.authorization: a secret must not be written in the file: use !secret env:NAME or !secret file:PATH",  # noqa: E501
        ]
    )
    assert refusals(f"{{endpoint: {ENDPOINT}, entra: cli, token_endpoint: {{url: https://x.example}}}}") == snapshot(
        ["2:10: service: entra and token_endpoint are both sources of tokens; keep one"]
    )
    assert refusals("[emulator]") == snapshot(["2:10: service: a list is not text"])


def test_users_and_tokens_that_do_not_go_with_the_service_have_their_place_too() -> None:
    theirs = 'desk: {plugins: [p], user: "8:acs:a_1", token: !secret env:T}'
    endpoint = f"{{endpoint: {ENDPOINT}, token_endpoint: {{url: https://t.example}}}}"

    assert refusals(f"{{endpoint: {ENDPOINT}}}") == snapshot(
        [
            "4:3: bots.desk.user: this is missing, because `service` cannot create users; run `chatbot identity create` with a key, and write the id that it prints",  # noqa: E501
            "4:3: bots.desk.token: this is missing, because `service` names no source of tokens (entra, token_endpoint); write a token as !secret",  # noqa: E501
        ]
    )
    assert refusals(f"{{endpoint: {ENDPOINT}}}", theirs, T=token_of("8:acs:other")) == snapshot(
        ["4:50: bots.desk.token: this token belongs to another user, 8:acs:other; use a token of 8:acs:a_1"]
    )
    assert refusals(endpoint) == snapshot(
        [
            "4:3: bots.desk.user: this is missing, because `service` cannot create users; run `chatbot identity create` with a key, and write the id that it prints"  # noqa: E501
        ]
    )
    for service in (endpoint, f'"{KEYED}"', f"{{endpoint: {ENDPOINT}, entra: cli}}"):
        assert refusals(service, theirs, T="x") == snapshot(
            ["4:50: bots.desk.token: `service` already names a source of tokens; remove this"]
        )
    assert refusals("emulator", theirs, T="x") == snapshot(
        [
            "4:30: bots.desk.user: the emulator creates its users itself; remove this",
            "4:50: bots.desk.token: `service` already names a source of tokens; remove this",
        ]
    )
    two = 'desk: {plugins: [p], user: "8:acs:a_1"}\n  echo: {plugins: [p], user: "8:acs:a_1"}'
    assert refusals(endpoint, two) == snapshot(
        ["5:30: bots.echo.user: this user already belongs to desk; every bot needs its own"]
    )
    assert refusals(endpoint, "desk: {plugins: [p], user: helpdesk}") == snapshot(
        [
            '4:30: bots.desk.user: this is not the id of a user ("8:acs:…"); `chatbot identity create` creates one and prints its id'  # noqa: E501
        ]
    )


def test_a_refusal_does_not_show_a_secret_of_the_file() -> None:
    bots = 'desk: {plugins: [p], user: "8:acs:a_1", token: eyJ.visible.x}'
    Path("bots.yaml").write_text(
        f"version: 1\nservice:\n  endpoint: {ENDPOINT}\n  token_endpoint:\n    url: ftp://t.example/?code=visible\n"
        f"    authorization: Bearer visible\nbots:\n  {bots}\n"
    )

    with pytest.raises(ConfigError) as caught:
        load_config(Path("bots.yaml"), {})

    assert len(caught.value.problems) == 3
    assert "visible" not in str(caught.value)
    assert "!secret" in str(caught.value)


def test_the_configuration_in_force_shows_the_endpoints_and_no_secret() -> None:
    service = "{url: 'https://t.example/x?code=visible', authorization: !secret env:T}"
    config = load(
        f"{{endpoint: {ENDPOINT}, token_endpoint: {service}}}", 'desk: {plugins: [p], user: "8:acs:a_1"}', T="visible"
    )

    shown = {".".join(map(str, value.path)): value.text for value in effective(config, config.document)}

    assert shown["service.endpoint"] == ENDPOINT
    assert shown["service.token_endpoint.url"] == "https://t.example/x?********"
    assert shown["service.token_endpoint.authorization"] == "********"
    assert shown["bots.desk.user"] == "8:acs:a_1"
