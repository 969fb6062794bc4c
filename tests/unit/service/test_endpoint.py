"""Endpoints and connection strings are read, or refused with a sentence that helps and keeps the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.errors import ConfigError
from chatbot.service.endpoint import ConnectionString, check_endpoint, is_loopback

KEY = "c2VjcmV0LWtleQ=="


@pytest.mark.parametrize(
    "text",
    [
        f"endpoint=https://contoso.communication.azure.com/;accesskey={KEY}",
        f"accessKey={KEY};Endpoint=https://contoso.communication.azure.com",
        f" endpoint = https://CONTOSO.communication.azure.com/ ; accesskey = {KEY} \n",
        f"endpoint=contoso.communication.azure.com;accesskey={KEY};",
    ],
)
def test_a_connection_string_is_read_in_any_order_and_case(text: str) -> None:
    known = ConnectionString.parse(text)

    assert known.endpoint == "https://contoso.communication.azure.com"
    assert known.access_key == KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no endpoint=…"),
        ("emulator", "has no endpoint=…"),
        (f"accesskey={KEY}", "has no endpoint=…"),
        ("endpoint=https://a.b/", "has no accesskey=…"),
        ("endpoint=https://a.b/;accesskey=", "has no accesskey=…"),
        ("endpoint=https://a.b/;accesskey=secret-key!", "is not base64 (11 characters)"),
        (f"endpoint=http://a.b/;accesskey={KEY}", "http://a.b is not encrypted"),
        (f"endpoint=https://a.b/chat;accesskey={KEY}", "'https://a.b/chat' is not an endpoint"),
        (f"endpoint=https://me:{KEY}@a.b;accesskey={KEY}", "'https://a.b' is not an endpoint"),
        (f"endpoint=ftp://a.b;accesskey={KEY}", "is not an endpoint"),
        (f"endpoint=https://a.b:99999;accesskey={KEY}", "is not an endpoint"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_keeps_the_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ConnectionString.parse(text)

    assert said in str(caught.value)
    assert KEY not in str(caught.value)
    assert "secret-key" not in str(caught.value)


def test_its_repr_keeps_the_key() -> None:
    assert KEY not in repr(ConnectionString("https://a.b", KEY))


@given(st.text(max_size=60), st.sampled_from(["endpoint=", "endpoint=https://", "accesskey=", ""]))
def test_every_configuration_is_read_or_refused(text: str, start: str) -> None:
    try:
        known = ConnectionString.parse(f"{start}{text};accesskey={KEY};endpoint=https://ok{text}")
    except ConfigError:
        return
    assert known.endpoint.startswith(("https://", "http://"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "acs.localhost", "[::1]"])
def test_plain_http_is_allowed_to_this_machine(host: str) -> None:
    assert check_endpoint(f"http://{host}:8080/") == f"http://{host.lower()}:8080"


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.evil.com", "127.0.0.1.evil.com", "0.0.0.0", "example.com"])
def test_plain_http_is_refused_to_other_machines(host: str) -> None:
    with pytest.raises(ConfigError, match="is not encrypted: use https://"):
        check_endpoint(f"http://{host}")

    assert not is_loopback(host)


def test_a_host_is_kept_as_it_is_sent() -> None:
    assert check_endpoint("https://Bücher.example:8443/") == "https://xn--bcher-kva.example:8443"
    with pytest.raises(ConfigError, match="is not an endpoint"):
        check_endpoint(f"https://{'ü' * 70}.example")


@pytest.mark.parametrize("quotes", ['""', "''", "“”", "‘’", '"', "``"])
def test_quotation_marks_are_named_as_the_mistake(quotes: str) -> None:
    text = f"endpoint=https://contoso.communication.azure.com/;accesskey={KEY}"
    inside = f"endpoint={quotes[0]}https://contoso.communication.azure.com/{quotes[-1]};accesskey={KEY}"

    for quoted in (f"{quotes[0]}{text}{quotes[-1]}", inside):
        with pytest.raises(ConfigError, match="has quotation marks in or around it; remove them") as caught:
            ConnectionString.parse(quoted)
        assert KEY not in str(caught.value)
