"""The environment's proxies are honoured, except where they would carry our requests in a circle."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from chatbot.errors import ConfigError
from chatbot.service.transport import proxy_for, tls_context

ACS = "https://contoso.communication.azure.com"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_no_proxy_is_used_unless_the_environment_names_one() -> None:
    assert proxy_for(ACS) is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_environment_s_proxy_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy:3128")

    assert proxy_for(ACS) == "http://proxy:3128"


def test_a_proxy_without_a_scheme_is_an_http_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")

    assert proxy_for(ACS) == "http://proxy:3128"


def test_hosts_in_no_proxy_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", ".azure.com")

    assert proxy_for(ACS) is None


@pytest.mark.parametrize("address", ["http://127.0.0.1:8080", "https://localhost:8443"])
def test_this_machine_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert proxy_for(address) is None


def test_a_proxy_of_another_kind_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:secret@proxy:1080")

    with pytest.raises(ConfigError, match="is a socks5 proxy; only http proxies can be used") as caught:
        proxy_for(ACS)

    assert "secret" not in str(caught.value)


def test_the_tls_context_verifies_hosts() -> None:
    context = tls_context(None)

    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigError, match=r"ca\.pem cannot be used"):
        tls_context(file)


@pytest.mark.parametrize(
    ("exceptions", "is_direct"),
    [
        ("*.communication.azure.com", True),
        ("*.azure.com", True),
        ("*.contoso.communication.azure.com", False),
        ("contoso.communication.azure.com", True),
        ("CONTOSO.Communication.Azure.Com.", True),
        ("contoso.communication.azure.com:443", True),
        ("contoso.communication.azure.com:8443", False),
        ("*.azure.com:443", True),
        ("*.azure.com:80", False),
        (" example.com ,  .azure.com ", True),
        ("example.com .azure.com", True),
        ("example.com\t.azure.com,", True),
        ("soso.communication.azure.com", False),
        ("ure.com", False),
        ("example.com, *", True),
        (",, ,", False),
        ("*.", False),
        (":443", False),
        ("[::1]:443, [", False),
    ],
)
def test_exceptions_are_names_and_patterns_with_or_without_a_port(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, is_direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)

    assert (proxy_for(ACS) is None) is is_direct


@pytest.mark.parametrize(
    ("exceptions", "address", "is_direct"),
    [
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3:8443", "https://10.1.2.3:8443", True),
        ("10.1.2.3:8443", "https://10.1.2.3", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("fd00::1", "https://[fd00::2]", False),
    ],
)
def test_exceptions_are_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, address: str, is_direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", " http://proxy:3128 ")
    monkeypatch.setenv("NO_PROXY", exceptions)

    assert proxy_for(address) == (None if is_direct else "http://proxy:3128")
