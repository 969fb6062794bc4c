from chatbot.bot.monitoring import EventDeadLettered, EventHandled, EventNoticed
from chatbot.errors import OutcomeUnknown, ServiceError, Throttled
from chatbot.runtime.observe.counters import BOUNDS, MAX_FAILURES, BotCounters, RecentFailure
from chatbot.runtime.observe.instrumented_service import outcome_of


def test_facts_become_counts() -> None:
    counters = BotCounters(clock=lambda: 100.0)
    for fact in (
        EventNoticed(0.5),
        EventHandled("bot.echo", 0.02),
        EventHandled("bot.echo", 2.0, "ValueError"),
        EventHandled(None, 0.0),
        EventDeadLettered(),
    ):
        counters.observe(fact)

    counts = counters.read()

    assert (counts.detection.count, counts.detection.total) == (1, 0.5)
    assert {key: taken.count for key, taken in counts.handlers.items()} == {
        ("bot.echo", "succeeded"): 1,
        ("bot.echo", "failed"): 1,
        ("", "succeeded"): 1,
    }
    assert counts.dead_lettered == 1
    assert counts.failures == (RecentFailure(100.0, "bot.echo", "ValueError"),)


def test_a_bound_belongs_to_its_own_bucket_and_more_than_all_to_the_last() -> None:
    counters = BotCounters()
    counters.observe(EventNoticed(BOUNDS[0]))
    counters.observe(EventNoticed(BOUNDS[-1] + 1))

    counts = counters.read().detection.counts

    assert (counts[0], counts[-1], sum(counts)) == (1, 1, 2)


def test_only_the_latest_failures_are_kept() -> None:
    counters = BotCounters()
    for number in range(MAX_FAILURES + 5):
        counters.observe(EventHandled(f"handler{number}", 0.0, "ValueError"))

    assert [one.handler for one in counters.read().failures] == [f"handler{n}" for n in range(5, MAX_FAILURES + 5)]


def test_calls_are_counted_by_how_they_ended() -> None:
    counters = BotCounters()
    counters.count_call("send_message", "ok", 0.1)
    counters.count_call("send_message", outcome_of(Throttled("later")), 0.2)
    counters.count_call("send_message", outcome_of(OutcomeUnknown("perhaps")), 0.3)
    counters.count_call("send_message", outcome_of(ServiceError("no")), 0.4)

    counts = counters.read()

    assert counts.calls == {
        ("send_message", "ok"): 1,
        ("send_message", "throttled"): 1,
        ("send_message", "outcome_unknown"): 1,
        ("send_message", "service_error"): 1,
    }
    assert counts.call_seconds["send_message"].count == 4
