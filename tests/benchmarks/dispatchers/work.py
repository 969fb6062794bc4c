"""The work that every dispatcher is given: 25 commands, 25 texts, one middleware; nothing but the standard library.

Each contender is a script beside this one. It registers the handlers in the way its library wants, and has each event
handled by the library's own entry for one; events are made before the clock starts. Handlers count and say nothing,
because what follows an answer (a request, a journal) is no matter of dispatching.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

COMMANDS = (*(f"command{number}" for number in range(24)), "help")
WORDS = tuple(f"word{number}" for number in range(25))
TEXT = f"well, {WORDS[-1]} it is"  # matched by the last handler of all
COMMAND = "/help"
WARM_UP = 20


class Count:
    """How often a handler and the middleware were called."""

    def __init__(self) -> None:
        self.handled = 0
        self.passed = 0


def pattern(word: str) -> str:
    """Return the regular expression of a text handler."""
    return rf"\b{word}\b"


async def measure(
    make: Callable[[int, str], Any],
    dispatch: Callable[[Any], Awaitable[object]],
    count: Count,
    *,
    has_texts: bool = True,
) -> None:
    """Print the microseconds of processor time that one event costs, as JSON, for a text and for a command.

    Args:
        make: an event, of its number and its text.
        dispatch: handles one; returns when its handler has run.
        count: counts calls, to see that nothing was left out.
        has_texts: whether there are handlers of texts.
    """
    events = int(sys.argv[1])
    costs = {}
    for name, text in (("text", TEXT), ("command", COMMAND)) if has_texts else (("command", COMMAND),):
        made = [make(number, text) for number in range(WARM_UP + events)]
        for event in made[:WARM_UP]:
            await dispatch(event)
        handled, passed = count.handled, count.passed
        begun = time.process_time()
        for event in made[WARM_UP:]:
            await dispatch(event)
        costs[name] = (time.process_time() - begun) / events * 1e6
        if (count.handled - handled, count.passed - passed) != (events, events):
            text = f"of {events} events {count.handled - handled} were handled, {count.passed - passed} passed"
            raise SystemExit(text)
    print(json.dumps(costs))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a contender's main function."""
    asyncio.run(main())
