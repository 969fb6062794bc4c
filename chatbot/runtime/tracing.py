"""Export of traces, configured by OpenTelemetry's standard environment variables.

`OTEL_TRACES_EXPORTER` (`otlp`, `console`, …) or `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) switch it on;
all the others (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, …)
are read by OpenTelemetry's own SDK. Under `opentelemetry-instrument` its provider is used as it is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import structlog

from chatbot.distribution import install_command, version

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

LAST_EXPORT_SECONDS: Final = 3.0
"""How long the process waits at its end for spans that are not exported yet."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def exporters(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters that the environment asks for; none without traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    names = [name.strip() for name in (environ.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    return [_OTLP.get(protocol, protocol) if name == "otlp" else name for name in names if name not in ("", "none")]


@contextmanager
def traced(environ: Mapping[str, str]) -> Iterator[TracerProvider | None]:
    """Yield what creates spans, or None without traces; export the remaining spans at the end.

    If traces are asked for and cannot be exported, a warning is logged and the bots run without.

    Args:
        environ: the environment variables.
    """
    provider = _installed()
    if provider is not None:
        yield provider
        return
    names = exporters(environ)
    if not names:
        yield None
        return
    made, reason = _make(names)
    if made is None:
        structlog.get_logger().warning("traces.switched_off", exporters=names, reason=reason)
        yield None
        return
    try:
        yield made
    finally:
        # In a daemon thread with a time limit: an unreachable collector must not delay a stop.
        ending = threading.Thread(target=made.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(LAST_EXPORT_SECONDS)


def _installed() -> TracerProvider | None:
    """Return the provider that is already installed, for example by `opentelemetry-instrument`."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider: TracerProvider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) else provider


def _make(names: list[str]) -> tuple[Any, str]:
    """Create a provider with these exporters; return None and the reason if that fails."""
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None, f"OpenTelemetry is not installed: {install_command('otel')}"
    ours = Resource({"service.name": "chatbot", "service.version": version()})
    resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())  # the environment takes precedence
    provider = Provider(shutdown_on_exit=False, resource=resource)
    for name in names:
        found = entry_points(group="opentelemetry_traces_exporter", name=name)
        if not found:
            known = sorted({one.name for one in entry_points(group="opentelemetry_traces_exporter")})
            return None, f"there is no exporter {name!r}; installed: {', '.join(known) or 'none'}"
        try:
            provider.add_span_processor(BatchSpanProcessor(next(iter(found)).load()()))
        except Exception as error:  # exporters of other packages may raise anything about their settings
            return None, f"the exporter {name!r} cannot be created: {type(error).__name__}"
    return provider, ""
