"""Failures are sorted by what the caller can do about them."""

from __future__ import annotations

import json
import socket
import ssl
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import ServiceRequestError, ServiceRequestTimeoutError, ServiceResponseError
from azure.core.utils import case_insensitive_dict
from hypothesis import given
from hypothesis import strategies as st

from chatbot.errors import (
    Forbidden,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServiceError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from chatbot.service import failures

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHAT_ENVELOPE = (
    '{\r\n  "CommunicationError": {\r\n    "Code": "NotFound",\r\n'
    '    "Message": "The thread is gone.",\r\n    "Details": []\r\n  }\r\n}'
)
SPEC_ENVELOPE = '{"error": {"code": "NotFound", "message": "The thread is gone."}}'
HOST: Any = SimpleNamespace(host="acs", port=443, is_ssl=True, ssl=True)


def refusal(status: int, text: str = "", **headers: str) -> ServiceError:
    named = case_insensitive_dict({name.replace("_", "-"): value for name, value in headers.items()})
    return failures.from_status("do it", status, named, text, NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (408, OutcomeUnknown),
        (409, Rejected),
        (413, Rejected),
        (422, Rejected),
        (429, Throttled),
        (500, OutcomeUnknown),
        (502, OutcomeUnknown),
        (503, OutcomeUnknown),
        (504, OutcomeUnknown),
        (302, ProtocolError),
    ],
)
def test_a_status_says_what_can_be_done(status: int, kind: type[ServiceError]) -> None:
    error = refusal(status)

    assert type(error) is kind
    assert error.status == status


def test_a_refused_token_and_a_service_out_of_reach_come_with_a_remedy() -> None:
    cause = aiohttp.ClientConnectorError(HOST, ConnectionRefusedError(111, "refused"))

    assert "of another resource: check it, and the endpoint" in str(refusal(401))
    assert "check the endpoint" in str(failures.from_exception("do it", ServiceRequestError(cause, error=cause)))


@pytest.mark.parametrize("text", [CHAT_ENVELOPE, SPEC_ENVELOPE])
def test_both_envelopes_give_code_and_words(text: str) -> None:
    error = refusal(404, text)

    assert error.code == "NotFound"
    assert str(error) == "cannot do it: the service answered 404 (NotFound: The thread is gone.)"


@pytest.mark.parametrize("text", ["", "<html>", "[]", "null", '{"error": "x"}', '{"error": {"code": 5}}', "[" * 99_999])
def test_an_error_with_an_unknown_body_is_described_by_its_status(text: str) -> None:
    error = refusal(403, text)

    assert error.code is None
    assert str(error) == "cannot do it: the service answered 403"


def test_hostile_words_stay_on_one_line_and_end() -> None:
    said = json.dumps({"error": {"code": "A\x1b[31m", "message": "x\n" * 10_000}})

    text = str(refusal(400, said))

    assert text.isprintable()
    assert len(text) < 800


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "-1"}, 0.0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"x_ms_retry_after_ms": "1500", "Retry_After": "9"}, 1.5),
        ({"Retry_After": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"Retry_After": "Thu, 01 Jan 2026 10:00:30 GMT", "Date": "Thu, 01 Jan 2026 10:00:10 GMT"}, 20.0),
        ({"Retry_After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"Retry_After": "86400"}, 300.0),
        ({"retry_after_ms": "9e15"}, 300.0),
        ({"Retry_After": "Fri, 01 Jan 2100 00:00:00 GMT"}, 300.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "inf"}, None),
    ],
)
def test_the_wait_asked_for_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    throttled, unknown = refusal(429, **headers), refusal(503, **headers)

    assert isinstance(throttled, Throttled)
    assert isinstance(unknown, OutcomeUnknown)
    assert throttled.retry_after == unknown.retry_after == seconds


@pytest.mark.parametrize(
    "cause",
    [
        aiohttp.ClientConnectorError(HOST, ConnectionRefusedError(111, "refused")),
        aiohttp.ClientConnectorDNSError(HOST, socket.gaierror(-2, "unknown host")),
        aiohttp.ClientConnectorSSLError(HOST, ssl.SSLError(1, "handshake")),
        aiohttp.ClientProxyConnectionError(HOST, OSError(111, "no proxy")),
        ConnectionRefusedError("down"),
    ],
)
def test_what_never_left_is_unreachable(cause: Exception) -> None:
    assert type(failures.from_exception("do it", ServiceRequestError(cause, error=cause))) is Unreachable


def test_a_connect_timeout_is_unreachable() -> None:
    assert type(failures.from_exception("do it", ServiceRequestTimeoutError("slow"))) is Unreachable


def test_an_untrusted_certificate_names_the_remedy() -> None:
    cause = aiohttp.ClientConnectorCertificateError(HOST, ssl.SSLCertVerificationError(1, "self-signed"))

    error = failures.from_exception("do it", ServiceRequestError(cause, error=cause))

    assert type(error) is Unreachable
    assert "ca_file" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        ServiceRequestError("cut", error=aiohttp.ServerDisconnectedError()),
        ServiceRequestError("cut", error=aiohttp.ClientOSError(104, "reset")),
        ServiceResponseError("reset", error=ConnectionResetError()),
        TimeoutError(),
    ],
)
def test_what_may_have_left_is_of_unknown_outcome(error: Exception) -> None:
    """azure-core calls a connection that broke after the request was written a *request* error, too."""
    assert type(failures.from_exception("do it", error)) is OutcomeUnknown


@given(st.text(), st.dictionaries(st.sampled_from(["retry-after", "date", "x-ms-retry-after-ms"]), st.text()))
def test_every_response_is_classified(text: str, headers: dict[str, str]) -> None:
    for status in (100, 300, 400, 429, 500, 999):
        error = failures.from_status("do it", status, headers, text, NOW)

        assert str(error).startswith("cannot do it: the service answered")


def test_the_password_of_a_proxy_is_in_no_error() -> None:
    error = failures.from_exception("send", OSError("501, url='http://me:secret@proxy.example:3128'"))

    assert "secret" not in str(error)
    assert "http://proxy.example:3128" in str(error)


def test_a_wait_that_is_too_long_is_said() -> None:
    assert str(refusal(429, Retry_After="86400")).endswith("it asks to wait 86400 s, and is asked again after 300 s")
