"""Where traces go is what OpenTelemetry's own environment variables say."""

from __future__ import annotations

import sys

import pytest
from structlog.testing import capture_logs

from chatbot.runtime.tracing import exporters, traced

OTLP = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "x"}, []),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": OTLP}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": OTLP}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": OTLP}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
    ],
)
def test_the_standard_variables_switch_traces_on(environ: dict[str, str], names: list[str]) -> None:
    assert exporters(environ) == names


def test_without_any_of_them_nothing_is_made_and_nothing_said() -> None:
    with capture_logs() as lines, traced({"OTEL_SERVICE_NAME": "x"}) as provider:
        assert provider is None

    assert lines == []


def test_an_exporter_that_is_not_there_is_said_and_no_reason_not_to_run() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'chatbot-acs[otel]'")

    with capture_logs() as lines, traced({"OTEL_TRACES_EXPORTER": "zipkin"}) as provider:
        assert provider is None

    (line,) = lines
    assert line["event"] == "traces.switched_off"
    assert line["reason"].startswith("there is no exporter 'zipkin'; installed: ")
    assert "otlp_proto_http" in line["reason"]


def test_without_opentelemetry_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("opentelemetry", "opentelemetry.trace", "opentelemetry.sdk", "opentelemetry.sdk.resources"):
        monkeypatch.setitem(sys.modules, module, None)

    with capture_logs() as lines, traced({"OTEL_TRACES_EXPORTER": "otlp"}) as provider:
        assert provider is None

    assert [line["reason"] for line in lines] == ["OpenTelemetry is not installed: pip install 'chatbot-acs[otel]'"]
