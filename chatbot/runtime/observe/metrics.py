"""Render the status as Prometheus metrics for /metrics. Times are in seconds; names follow Prometheus conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from chatbot.runtime.observe.counters import BOUNDS, Distribution
from chatbot.runtime.observe.sharing import SharingStatus
from chatbot.runtime.observe.status import ServedBot, Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES: Final[Mapping[str, tuple[str, Callable[[ServedBot], float | None]]]] = {
    "chatbot_threads": ("Threads the bot is in.", lambda bot: bot.report.threads),
    "chatbot_paused": ("1 while an operator has paused the bot.", lambda bot: int(bot.report.paused is not None)),
    "chatbot_poll_lag_seconds": ("Seconds by which the latest poller is overdue.", lambda bot: bot.report.lag),
    "chatbot_missed_beats": (
        "Stalled pollers: those more than five minutes overdue.",
        lambda bot: len(bot.report.stalled),
    ),
    "chatbot_oldest_unhandled_seconds": (
        "Age of the oldest message that was seen but not handled.",
        lambda bot: bot.report.oldest_unhandled or 0.0,
    ),
    "chatbot_handlers_running": ("Running handlers.", lambda bot: len(bot.report.running)),
    "chatbot_handler_longest_seconds": (
        "Seconds for which the longest-running handler has run.",
        lambda bot: bot.report.running[0].seconds if bot.report.running else 0.0,
    ),
    "chatbot_handlers_waiting": ("Events that wait for a handler slot.", lambda bot: bot.report.waiting),
    "chatbot_handlers_most": ("Maximum number of concurrent handlers.", lambda bot: bot.report.max_handlers),
    "chatbot_outbox_rows": ("Unsent actions.", lambda bot: bot.report.outbox),
    "chatbot_outbox_oldest_seconds": ("Age of the oldest unsent action.", lambda bot: bot.report.outbox_age or 0.0),
    "chatbot_troubles": ("Kinds of work that are failing.", lambda bot: len(bot.report.troubles)),
    "chatbot_dead_letters": ("Dead letters.", lambda bot: bot.dead_letters),
}


class _Snapshot(Collector):
    """Prometheus collector of one status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        yield from self._of_process()
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["bot"])
            for bot in self._status.bots:
                value = read(bot)
                if value is not None:
                    gauge.add_metric([bot.report.name], value)
            yield gauge
        if self._status.sharing is not None:
            yield from _sharing(self._status.sharing)
        yield self._token_life()
        yield self._quotas()
        yield self._degraded()
        yield from self._counters()
        yield from self._histograms()

    def _of_process(self) -> Iterable[Metric]:
        status = self._status
        info = GaugeMetricFamily("chatbot_info", "Version of chatbot.", labels=["version"])
        info.add_metric([status.version], 1)
        yield info
        yield GaugeMetricFamily("chatbot_emulator", "1 if the bots use the emulator.", int(status.is_emulator))
        yield GaugeMetricFamily(
            "chatbot_ready", "1 while the store and all tokens are usable.", int(not status.unready)
        )
        is_refused = status.reloaded is not None and status.reloaded.is_refused
        postponed = len(status.reloaded.postponed) if status.reloaded else 0
        yield GaugeMetricFamily("chatbot_reload_refused", "1 if the latest reload was refused.", int(is_refused))
        yield GaugeMetricFamily(
            "chatbot_settings_postponed", "Settings of the latest reload that need a restart.", postponed
        )
        yield GaugeMetricFamily("chatbot_tasks", "Tasks of the event loop.", status.tasks)
        if status.memory is not None:
            yield GaugeMetricFamily("chatbot_memory_bytes", "Resident memory.", status.memory)

    def _token_life(self) -> Metric:
        gauge = GaugeMetricFamily("chatbot_token_seconds_left", "Until the bot's token expires.", labels=["bot"])
        for bot in self._status.bots:
            if bot.counts.token_expires_on is not None:
                gauge.add_metric([bot.report.name], bot.counts.token_expires_on - self._status.now)
        return gauge

    def _quotas(self) -> Metric:
        gauge = GaugeMetricFamily(
            "chatbot_quota_left",
            "Requests that the service allows at once, in the thread where the fewest are left.",
            labels=["bot", "operation"],
        )
        for bot in self._status.bots:
            for operation, left in bot.report.quota_left.items():
                gauge.add_metric([bot.report.name, operation], left)
        return gauge

    def _degraded(self) -> Metric:
        gauge = GaugeMetricFamily(
            "chatbot_degraded",
            "1 for every reason why something does not work as it should; bot is empty for the whole process.",
            labels=["bot", "reason"],
        )
        found = [("", self._status.degraded), *((bot.report.name, bot.report.degraded) for bot in self._status.bots)]
        for bot, degraded in found:
            for reason in sorted({one.reason for one in degraded}):
                gauge.add_metric([bot, reason], 1)
        return gauge

    def _counters(self) -> Iterable[Metric]:
        calls = CounterMetricFamily(
            "chatbot_service_calls", "Calls of the service, by how they ended.", labels=["bot", "operation", "outcome"]
        )
        dead_lettered = CounterMetricFamily("chatbot_dead_letters_made", "Events that were given up.", labels=["bot"])
        healed = CounterMetricFamily("chatbot_doubles_healed", "Replies that were there twice.", labels=["bot"])
        slow = CounterMetricFamily("chatbot_handlers_slow", "Handlers that ran for more than a minute.", labels=["bot"])
        abandoned = CounterMetricFamily(
            "chatbot_handlers_abandoned", "Handlers that did not end after they were canceled.", labels=["bot"]
        )
        for bot in self._status.bots:
            for (operation, outcome), count in bot.counts.calls.items():
                calls.add_metric([bot.report.name, operation, outcome], count)
            slow.add_metric([bot.report.name], bot.counts.slow)
            abandoned.add_metric([bot.report.name], bot.counts.abandoned)
            dead_lettered.add_metric([bot.report.name], bot.counts.dead_lettered)
            healed.add_metric([bot.report.name], bot.counts.healed)
        yield from (calls, dead_lettered, healed, slow, abandoned)

    def _histograms(self) -> Iterable[Metric]:
        detection = HistogramMetricFamily(
            "chatbot_detection_seconds", "From a change on the service to its sight.", labels=["bot"]
        )
        handlers = HistogramMetricFamily(
            "chatbot_handler_seconds", "How long handlers took.", labels=["bot", "handler", "outcome"]
        )
        calls = HistogramMetricFamily(
            "chatbot_service_call_seconds", "How long calls of the service took.", labels=["bot", "operation"]
        )
        for bot in self._status.bots:
            name = bot.report.name
            _add(detection, [name], bot.counts.detection)
            for labels, taken in bot.counts.handlers.items():
                _add(handlers, [name, *labels], taken)
            for operation, taken in bot.counts.call_seconds.items():
                _add(calls, [name, operation], taken)
        yield from (detection, handlers, calls)


def _sharing(status: SharingStatus) -> Iterable[Metric]:
    """Yield metrics of a process that shares its store."""
    yield GaugeMetricFamily(
        "chatbot_store_held", "1 while the session with the store's server is alive.", int(status.is_held)
    )
    yield GaugeMetricFamily("chatbot_shards_owned", "Groups of threads that this process owns.", status.owned)
    yield GaugeMetricFamily(
        "chatbot_shards_without_owner",
        "Groups of threads that no process has owned for more than ten seconds.",
        status.ownerless,
    )
    yield GaugeMetricFamily("chatbot_replicas", "Processes that share the store.", len(status.replicas))
    if status.lag is not None:
        yield GaugeMetricFamily(
            "chatbot_replication_lag_seconds", "By how much the slowest standby of the server is behind.", status.lag
        )
    counts = {
        "chatbot_shards_gained": ("Groups of threads taken by this process.", status.moves.gained),
        "chatbot_shards_gained_after_crash": (
            "Those of them whose last owner did not release them in order.",
            status.moves.after_crash,
        ),
        "chatbot_shards_released": ("Groups of threads given up in order.", status.moves.released),
        "chatbot_shards_lost": ("Groups of threads that were taken from this process.", status.moves.lost),
        "chatbot_commits_refused": ("Commits refused because another process owned the threads.", status.refused),
    }
    for name, (text, count) in counts.items():
        yield CounterMetricFamily(name, text, count)
    commits = HistogramMetricFamily(
        "chatbot_commit_seconds", "Round trips of commits to the store's server.", labels=[]
    )
    _add(commits, [], status.commits)
    yield commits


def _add(histogram: HistogramMetricFamily, labels: list[str], taken: Distribution) -> None:
    buckets, below = [], 0
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], taken.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    histogram.add_metric(labels, buckets, taken.total)


def render(status: Status) -> bytes:
    """Return the metrics text. Reads process data from the system, so call it in a thread."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Snapshot(status))
    return generate_latest(registry)
