"""No library: what the language itself costs. Commands in a dict, texts in a list of patterns, one function around."""

from __future__ import annotations

import re

from work import COMMANDS, WORDS, Count, measure, pattern, run


async def main() -> None:
    count = Count()

    async def handler(text: str) -> None:
        count.handled += 1

    commands = dict.fromkeys(COMMANDS, handler)
    texts = [(re.compile(pattern(word)).search, handler) for word in WORDS]

    async def answer(text: str) -> None:
        if text.startswith("/"):
            await commands[text[1:].partition(" ")[0]](text)
            return
        for matches, one in texts:
            if matches(text):
                await one(text)
                return

    async def around(text: str) -> None:
        count.passed += 1
        await answer(text)

    await measure(lambda number, text: text, around, count)


run(main)
