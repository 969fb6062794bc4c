"""The state machine of a membership, under any sequence of answers: no thread is left without proof."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chatbot.bot.membership import (
    LONGEST_TIMED_PROBE,
    PROOF_SECONDS,
    SHORTEST_TIMED_PROBE,
    Membership,
    Parking,
    Presence,
    Sighting,
    absences,
)

sightings = st.lists(st.tuples(st.sampled_from(Sighting), st.floats(0, 20)), max_size=40)


@given(sightings)
def test_a_removal_is_proven_by_two_separate_observations_only(
    seen: list[tuple[Sighting, float]],
) -> None:
    membership, now = Membership(Presence.IN, is_reported_out=False), 0.0
    absent: list[float] = []
    for sighting, pause in seen:
        now += pause
        membership.suspect()
        is_proven = membership.apply_sighting(sighting, now)
        if sighting is Sighting.PRESENT:
            absent = []
            assert membership.presence is Presence.IN
        elif sighting is Sighting.ABSENT:
            absent.append(now)
        assert is_proven == (sighting is Sighting.ABSENT and now - absent[0] >= PROOF_SECONDS)
        assert membership.pause(now) == (max(0.0, absent[0] + PROOF_SECONDS - now) if absent else 0.0)
        assert not membership.is_out


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=30).map(sorted), st.floats(3600, 1e7))
def test_probes_are_rarer_the_longer_the_bot_is_out_and_end(ages: list[float], retention: float) -> None:
    membership = Membership(Presence.IN, is_reported_out=False)
    membership.leave(0.0, 0)
    pauses = []
    for age in ages:
        membership.postpone_probe(age, age)
        pause = membership.next_probe(age, age, retention)
        assert (pause is None) == (age >= retention)
        if pause is not None:
            assert SHORTEST_TIMED_PROBE - 0.01 <= pause <= LONGEST_TIMED_PROBE + 0.01
            pauses.append(pause)

    assert all(later >= earlier - 0.01 for earlier, later in pairwise(pauses))


def test_a_deleted_thread_is_not_probed() -> None:
    membership = Membership(Presence.IN, is_reported_out=False)
    membership.leave(0.0, 0, is_deleted=True)

    assert membership.is_out
    assert membership.next_probe(1e6, 0.0, 1e9) is None
    assert not membership.needs_probe(None, None, 1e6)


@given(st.floats(0, 1e7), st.floats(0, 1e6), st.floats(0, 1e7))
def test_what_is_parked_expires_at_the_time_that_was_said_and_replies_never_last(
    age: float, rejoin: float, retention: float
) -> None:
    parking = Parking(rejoin, retention)
    assert not parking.expires_conversations(age) or parking.expires_replies(age)
    pause = parking.next(age)
    if pause is None:
        assert parking.expires_conversations(age)
    else:
        later = age + pause + 0.01
        before = parking.expires_replies(age), parking.expires_conversations(age)
        assert (parking.expires_replies(later), parking.expires_conversations(later)) != before


stays = st.lists(st.integers(1, 50), max_size=8)


@given(stays, st.integers(0, 400), st.data())
def test_every_message_of_an_absence_is_in_one_and_no_other_is(
    lengths: list[int], arrived: int, data: st.DataObject
) -> None:
    comings: dict[int, bool] = {}
    moment, is_in = arrived + 1, True
    truth: dict[int, bool] = {}
    for length in lengths:
        for id in range(moment, moment + length):
            truth[id] = is_in
        moment += length
        is_in = not is_in
        comings[moment] = is_in
        moment += 1
    old = data.draw(st.dictionaries(st.integers(0, arrived), st.booleans(), max_size=5))
    found = absences({**old, **comings}, arrived=arrived, known=arrived)

    for id, was_in in truth.items():
        is_absent = any(begin < id and (end is None or id < end) for begin, end in found)
        assert is_absent is not was_in


@given(st.integers(10, 100), st.integers(1, 100))
def test_a_return_without_a_removal_begins_where_the_thread_was_known_to(known: int, later: int) -> None:
    assert absences({known + later: True}, arrived=5, known=known) == [(known, known + later)]
    assert absences({known + later: True}, arrived=0) == []
