from chatbot.bot.monitoring import THREAD_LIST, Heartbeats


def test_a_poller_is_stalled_from_its_announced_time_on() -> None:
    pulse = Heartbeats()
    pulse.set_deadline(THREAD_LIST, until=30.0)

    assert pulse.overdue(30.0) == {}
    assert pulse.overdue(31.5) == {THREAD_LIST: 1.5}


def test_a_poller_that_continues_is_no_longer_stalled() -> None:
    pulse = Heartbeats()
    pulse.set_deadline("19:a", until=0.0)
    pulse.set_deadline("19:a", until=60.0)

    assert pulse.overdue(50.0) == {}


def test_a_turn_that_has_ended_cannot_be_late() -> None:
    pulse = Heartbeats()
    pulse.set_deadline("19:a", until=0.0)
    pulse.remove("19:a")

    assert pulse.overdue(1000.0) == {}


def test_a_long_handler_is_listed_and_makes_nobody_late() -> None:
    pulse = Heartbeats()
    pulse.set_deadline("19:a", until=0.0)
    pulse.handler_started("19:a", "MessageReceived", now=1.0)

    assert pulse.overdue(1000.0) == {}
    assert pulse.running(1000.0) == {"19:a": ("MessageReceived", 999.0)}


def test_after_a_handler_the_interval_counts_from_its_end() -> None:
    pulse = Heartbeats()
    pulse.set_deadline("19:a", until=0.0)
    pulse.handler_started("19:a", "MessageReceived", now=1.0)
    pulse.handler_ended("19:a", now=1000.0)

    assert pulse.running(1001.0) == {}
    assert pulse.overdue(1001.0) == {"19:a": 1.0}


def test_an_event_that_waits_for_a_free_handler_makes_nobody_late() -> None:
    pulse = Heartbeats()
    pulse.set_deadline("19:a", until=0.0)
    pulse.mark_waiting("19:a")

    assert pulse.overdue(1000.0) == {}

    pulse.handler_started("19:a", "MessageReceived", now=1000.0)
    pulse.handler_ended("19:a", now=1001.0)

    assert pulse.overdue(1002.0) == {"19:a": 1.0}
