"""Answers frequent questions: `settings` say which, and what the answers are; `/faq` lists them.

In bots.yaml:

    plugins:
      - module: plugins.faq
        settings:
          entries:
            - question: When are you open?
              answer: Monday to Friday, 9 to 17.
              words: [opening, hours]
"""

import re

from pydantic import BaseModel, Field

from chatbot import PASS, Context, Pass, Plugin


class Entry(BaseModel):
    """One question: whoever uses enough of its words, or of the further ones, gets its answer."""

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    words: list[str] = []


class Settings(BaseModel):
    """The entries, and how alike a message must be to a question: 0 is not at all, 1 is word for word."""

    entries: list[Entry] = Field(min_length=1)
    threshold: float = Field(default=0.6, gt=0, le=1)


def words_of(text: str) -> set[str]:
    """The words that tell one question from another."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2}


def likeness(said: set[str], entry: Entry) -> float:
    """How much of a question was said; one of its further words is enough to be sure."""
    asked = words_of(entry.question)
    if said & {word.casefold() for word in entry.words}:
        return 1.0
    return len(said & asked) / len(asked) if asked else 0.0


def plugin(settings: Settings) -> Plugin:
    """The plugin with these entries."""
    faq = Plugin("faq")

    @faq.command("faq")
    async def list_questions(ctx: Context) -> str:
        """List the questions that have an answer."""
        return "\n".join(f"• {entry.question}" for entry in settings.entries)

    @faq.message()
    async def answer(ctx: Context) -> str | Pass:
        """Answer the question that is most like what was said; leave everything else to others."""
        said = words_of(ctx.text)
        best = max(settings.entries, key=lambda entry: likeness(said, entry))
        return best.answer if likeness(said, best) >= settings.threshold else PASS

    return faq
