"""What an author gives to a plugin and its decorators wrongly is refused at that line, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from chatbot import Context, Event, ParticipantsAdded, Plugin, TimerFired, regex
from tests.unit.plugin.mistakes import Mistakes

MISTAKES = Mistakes()
says = MISTAKES.says


@says("'roll dice' cannot be typed as a command; use letters, digits, - and _, as in @plugin.command(\"roll\")")
def untypable_command(plugin: Any) -> None:
    plugin.command("roll dice")


@says('the function roll cannot be typed as a command; use letters, digits, - and _, as in @plugin.command("roll")')
def command_without_its_name(plugin: Any) -> None:
    @plugin.command
    async def roll(ctx: Context) -> None: ...


@says(
    "echo is used as a filter, but it is async: a handler's decorator needs its parentheses,"
    " as in @plugin.message(), and a filter is a plain function from an event to a bool"
)
def forgotten_parentheses(plugin: Any) -> None:
    @plugin.message
    async def echo(ctx: Context) -> None: ...


@says("'hi' is not a filter; use one of chatbot's filters or a function from an event to a bool")
def text_as_a_filter(plugin: Any) -> None:
    plugin.message("hi")


@says("on() takes a class of events, as in @plugin.on(ParticipantsAdded), not 'ParticipantsAdded'")
def event_by_name(plugin: Any) -> None:
    plugin.on("ParticipantsAdded")


@says("on() takes a class of events, as in @plugin.on(ParticipantsAdded), not the function greet")
def no_event(plugin: Any) -> None:
    @plugin.on
    async def greet(ctx: Context[ParticipantsAdded]) -> None: ...


@says("on(TimerFired) gets nothing: a timer calls the function it was set for; decorate that with @plugin.timer")
def timers_for_everybody(plugin: Any) -> None:
    plugin.on(TimerFired)


@says("error() takes classes of exceptions, as in @plugin.error(OSError), not the function sorry")
def error_handler_without_parentheses(plugin: Any) -> None:
    @plugin.error
    async def sorry(ctx: Context[Event], error: Exception) -> None: ...


@says("'(unclosed' is not a regular expression: missing ), unterminated subpattern at position 0")
def broken_pattern(plugin: Any) -> None:
    plugin.message(regex("(unclosed"))


@says("'0 25 * * *' is not a cron expression: bad hour; an example is '0 9 * * 1-5'")
def no_such_hour(plugin: Any) -> None:
    plugin.cron("0 25 * * *")


@says("9 is not a cron expression; give minute, hour, day of month, month, day of week, as in '0 9 * * 1-5'")
def cron_by_hour(plugin: Any) -> None:
    plugin.cron(9)


@says("'Europe/Pari' is not a time zone; give one of the IANA database, as in 'Europe/Paris'")
def unknown_zone(plugin: Any) -> None:
    plugin.cron("0 9 * * *", tz="Europe/Pari")


@says("2 is not a time zone; give one of the IANA database, as in 'Europe/Paris'")
def zone_by_offset(plugin: Any) -> None:
    plugin.cron("0 9 * * *", tz=2)


@says("every(60) is not a duration; write every(timedelta(seconds=60))")
def period_in_seconds(plugin: Any) -> None:
    plugin.every(60)


@says("timeout=60 is not a time; write timeout=timedelta(seconds=60)")
def timeout_in_seconds(plugin: Any) -> None:
    plugin.message(timeout=60)


@says("retry=3 does not say how to retry; write retry=Retry(attempts=3)")
def retry_by_number(plugin: Any) -> None:
    plugin.message(retry=3)


@says("ack='manual' is not when to acknowledge; write ack=Ack.HANDLED, or another one of Ack")
def ack_by_name(plugin: Any) -> None:
    plugin.command("roll", ack="manual")


@says("from_bots='echo' is neither True nor False")
def from_one_bot(plugin: Any) -> None:
    plugin.message(from_bots="echo")


@says("include() takes a Plugin, not 'plugins.other'; write `from plugins.other import plugin as other`")
def included_by_name(plugin: Any) -> None:
    plugin.include("plugins.other")


@says('7 is not a plugin name; write Plugin("dice")')
def number_as_a_name(plugin: Any) -> None:
    plugin.include(Plugin(7))  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", MISTAKES, ids=MISTAKES.name)
def test_a_mistake_is_refused_with_its_place_and_its_remedy(reason: str) -> None:
    MISTAKES.check(reason, __file__)
