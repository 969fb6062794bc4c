from chatbot.bot.degraded import Degraded, DegradedReasons


def test_a_reason_keeps_its_first_time_and_its_last_detail():
    reasons = DegradedReasons()

    reasons.begin("lane_failing", "once", 10.0)
    reasons.begin("lane_failing", "twice", 30.0)

    assert reasons.current(40.0) == (Degraded("lane_failing", "twice", 30.0),)


def test_what_ends_in_one_place_goes_on_in_another():
    reasons = DegradedReasons()
    reasons.begin("handler_abandoned", "in a", 0.0, place="19:a")
    reasons.begin("handler_abandoned", "in b", 5.0, place="19:b")

    reasons.end("handler_abandoned", place="19:a")
    reasons.end("handler_abandoned", place="19:c")

    assert [reason.detail for reason in reasons.current(10.0)] == ["in b"]


def test_sources_are_asked_at_every_reading_and_the_longest_reason_comes_first():
    reasons = DegradedReasons()
    reasons.add_source(lambda now: [Degraded("handler_slow", "a handler", now)])
    reasons.begin("lane_failing", "a lane", 50.0)

    assert [reason.reason for reason in reasons.current(60.0)] == ["handler_slow", "lane_failing"]
    assert not DegradedReasons().current(60.0)


def test_what_must_last_before_it_counts_is_no_reason_until_then():
    reasons = DegradedReasons()

    reasons.begin("lane_failing", "a lane", 0.0, after=120.0)

    assert not reasons.current(119.0)
    assert [reason.seconds for reason in reasons.current(120.0)] == [120.0]
