"""Threads the bot is out of are probed when they move, and ever more rarely while the probes fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chatbot.bot.membership import Membership, Presence

LEFT = datetime(2026, 1, 1, tzinfo=UTC)
LEFT_MS = int(LEFT.timestamp() * 1000)


def out(now: float = 0.0) -> Membership:
    membership = Membership(Presence.IN, is_reported_out=False)
    membership.leave(now)
    return membership


def test_a_thread_that_does_not_move_is_never_probed() -> None:
    assert not out().needs_probe(LEFT - timedelta(minutes=1), LEFT_MS, now=1e9)


def test_a_thread_that_moves_is_probed_once_for_each_stamp() -> None:
    membership = out()
    moved = LEFT + timedelta(minutes=1)

    assert membership.needs_probe(moved, LEFT_MS, now=100)
    membership.probe(moved)
    membership.leave(100)
    assert not membership.needs_probe(moved, LEFT_MS, now=1e9)


def test_failing_probes_become_rarer_up_to_five_minutes() -> None:
    membership, now, pauses = out(), 0.0, []
    for minute in range(12):
        stamp = LEFT + timedelta(minutes=minute + 1)
        begun = now
        while not membership.needs_probe(stamp, LEFT_MS, now):
            now += 1
        pauses.append(now - begun)
        membership.probe(stamp)
        membership.leave(now)

    assert pauses == sorted(pauses)
    assert pauses[-1] == 300


def test_a_return_ends_the_removal_and_the_next_removal_is_reported_again() -> None:
    membership = out()
    membership.probe(None)
    membership.enter()
    membership.mark_reported_in()

    assert membership.presence is Presence.IN
    assert not membership.is_reported_out
