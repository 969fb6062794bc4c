"""A burst: one word in each of 1,000 threads, said before the bot's first poll; and what the quotas allow for a minute.

`chatbot run` has one core, the emulator another. Counted is from the bot's first poll to the last reply; receipts are
counted apart. What the machine does besides makes the answers a second fewer, but not the processor time of one: what
a core of its own would allow is shown beside it. Then people speak for a minute in all threads, as often as the quota
of a thread allows: 30 messages a minute, of which the replies are half.
"""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks.frame import Frame, Report, Row
from tests.benchmarks.stack import Stack, running

TITLE = "A burst: one word in each of 1,000 threads before the bot's first poll"

THREADS, QUICK_THREADS = 1_000, 30
EXCHANGES_PER_SECOND = 0.25
"""In one thread: with the replies, 30 messages a minute."""

MINUTE, QUICK_MINUTE = 60.0, 4.0
LIMIT_SECONDS = 60.0

Found = dict[str, Any]


def run(frame: Frame) -> Report:
    """Measure the burst in every round, each with a new bot, and the minute after the last one."""
    threads = QUICK_THREADS if frame.quick else THREADS
    bursts: list[Found] = []
    for number in range(frame.rounds):
        frame.say(f"round {number + 1} of {frame.rounds}: a burst in {threads:,} threads")
        directory = frame.workdir / str(number)
        with running(directory, threads, said_before=threads, has_own_cores=True) as stack:
            bursts.append(_answered(stack))
            if number == frame.rounds - 1:
                minute = QUICK_MINUTE if frame.quick else MINUTE
                frame.say(f"speak for {minute:.0f} s in {threads:,} threads")
                sustained = _sustained(stack, threads, minute)
    return Report([*_burst_rows(threads, bursts), *sustained])


def _answered(stack: Stack) -> Found:
    found = stack.tell("answered", bot=stack.bot.pid, seconds=LIMIT_SECONDS)
    if found["unanswered"] or not found["seconds"]:
        message = f"{found['unanswered']} of {len(stack.facts['threads'])} messages were not answered"
        raise RuntimeError(message)
    return found


def _burst_rows(threads: int, bursts: list[Found]) -> list[Row]:
    def median(key: str, factor: float = 1.0) -> float:
        return statistics.median(float(found[key]) for found in bursts) * factor

    rates = [threads / found["seconds"] for found in bursts]
    with_receipts = statistics.median(threads / found["seconds_with_receipts"] for found in bursts)
    microseconds = 1e6 / threads
    receipts = f"{median('receipts_meanwhile', 1 / threads):.2f} receipts for each until the last reply"
    return [
        Row("answered, from the first poll to the last reply", statistics.median(rates), "/s", target="≥ 800"),
        Row("answered and shown as read", with_receipts, "/s", note=receipts),
        Row(
            "answered, by the processor time of the bot",
            statistics.median(threads / found["bot"] for found in bursts),
            "/s of a core",
        ),
        Row("processor time of the bot for each answer", median("bot", microseconds), "µs"),
        Row("processor time of the emulator for each answer", median("emulator", microseconds), "µs"),
        Row("polls for each answer", median("polls_meanwhile", 1 / threads), ""),
    ]


def _sustained(stack: Stack, threads: int, seconds: float) -> list[Row]:
    optimum = threads * EXCHANGES_PER_SECOND
    before = stack.cpu()
    talked = stack.tell("talk", rate=optimum, seconds=seconds)
    used = stack.cpu()["bot"] - before["bot"]
    answered = len(talked["replied"])
    name = f"sustained for {seconds:.0f} s, as fast as the quotas allow"
    share = answered / (optimum * seconds)
    note = f"{answered:,} answered, {talked['unanswered']} unanswered"
    return [
        Row(f"{name}: answered", answered / seconds, "/s", "the quotas' optimum", optimum, share, note=note),
        Row(f"{name}: polls for each answer", talked["calls"]["list_messages"] / max(1, answered), ""),
        Row(f"{name}: processor time of the bot for each answer", used / max(1, answered) * 1e6, "µs"),
    ]
