"""Traces, made with the real OpenTelemetry SDK: from the poll that shows a message to the receipt, without a word."""

from __future__ import annotations

import io
import json
from pathlib import Path

import anyio
import pytest

from chatbot.runtime.logs import logging_to
from tests.support.assembled import assembled

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'chatbot-acs[otel]'")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

pytestmark = pytest.mark.virtual_time

PLUGIN = """
from chatbot import PASS, Context, Pass, Plugin, Retry

plugin = Plugin("traced")
tries = 0

@plugin.message(retry=Retry(3))
async def first(ctx: Context) -> Pass:
    global tries
    tries += 1
    if ctx.text == "flaky" and tries % 2:
        raise LookupError(ctx.text)
    ctx.log.info("text.counted")
    return PASS

@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""


class Traces:
    """What was exported."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def of(self, message: str) -> list[ReadableSpan]:
        """The spans of the trace of a message, in their order."""
        ids = {trace_of(span) for span in self.spans if attribute(span, "chatbot.event_key") == message}
        assert len(ids) == 1
        return [span for span in self.spans if trace_of(span) in ids]


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {}).get(name)


def short(span: ReadableSpan) -> str:
    return span.name.rpartition(".")[2]


async def test_a_message_is_one_trace_from_the_look_to_the_receipt(tmp_path: Path) -> None:
    traces = Traces()
    async with assembled(tmp_path, PLUGIN, traces=traces.provider) as site:
        message = await site.say("hello")

    spans = traces.of(message)
    root, poll = sorted(spans[:2], key=lambda span: span.name)
    assert [root.name, poll.name] == ["MessageReceived", "poll"]
    assert [short(span) for span in spans[2:]] == ["first", "echo", "commit", "SendMessage", "receipt"]
    assert root.parent is None
    assert root.context is not None
    assert all(
        span.parent is not None and span.parent.span_id == root.context.span_id for span in spans if span is not root
    )
    assert root.kind is SpanKind.CONSUMER
    assert attribute(root, "chatbot.thread") == site.thread
    assert attribute(root, "chatbot.message") == message
    assert all(span.status.is_ok for span in spans)
    assert poll.start_time == root.start_time
    assert (poll.end_time or 0) <= (spans[2].start_time or 0)


async def test_attempts_and_late_replies_stay_in_the_trace_and_failures_are_named_by_their_class(
    tmp_path: Path,
) -> None:
    traces = Traces()
    async with assembled(tmp_path, PLUGIN, traces=traces.provider) as site:
        site.emulator.faults.add(f"send_message:429,user={site.bot.user}")
        message = await site.ann.send_message(site.thread, "flaky")
        await anyio.sleep(30)
        site.emulator.faults.clear()
        await site.bot.wait_until_settled(site.thread, int(message))

    spans = traces.of(message)
    attempts = [span for span in spans if span.name == "MessageReceived"]
    sends = [span for span in spans if span.name == "SendMessage"]
    failed = next(span for span in spans if short(span) == "first")
    assert [attribute(span, "chatbot.attempt") for span in attempts] == [1, 2]
    assert [span.status.is_ok for span in attempts] == [False, True]
    assert attribute(failed, "error.type") == "LookupError"
    assert len(sends) > 1
    assert attribute(sends[0], "error.type") == "Throttled"
    assert sends[-1].status.is_ok


async def test_lines_of_the_log_name_the_trace(tmp_path: Path) -> None:
    traces, log = Traces(), io.StringIO()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN, traces=traces.provider) as site:
            message = await site.say("hello")

    (line,) = (one for one in map(json.loads, log.getvalue().splitlines()) if one["event"] == "text.counted")
    assert line["trace"] == f"{trace_of(traces.of(message)[0]):032x}"


async def test_no_text_name_or_secret_is_in_any_span(tmp_path: Path) -> None:
    traces = Traces()
    async with assembled(tmp_path, PLUGIN, traces=traces.provider) as site:
        await site.say("flaky")
        key = site.emulator.access_key

    exported = "".join(span.to_json() for span in traces.spans)
    assert len(traces.spans) > 8
    for secret in ("flaky", "Echo", key, "Bearer"):
        assert secret not in exported


async def test_idle_looks_and_lazy_writes_make_no_spans(tmp_path: Path) -> None:
    traces = Traces()
    async with assembled(tmp_path, PLUGIN, traces=traces.provider) as site:
        await site.say("hello")
        before = len(traces.spans)
        await anyio.sleep(1200)

        assert len(traces.spans) == before
