"""Answer frequent questions from `settings`; `/faq` lists the questions.

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
    """A question. A message with enough of its words, or with one of the further words, gets the answer."""

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    words: list[str] = []


class Settings(BaseModel):
    """The entries, and the share of a question's words that a message must have, from 0 to 1."""

    entries: list[Entry] = Field(min_length=1)
    threshold: float = Field(default=0.6, gt=0, le=1)


def words_of(text: str) -> set[str]:
    """Return the words of a text that are longer than two letters."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2}


def likeness(said: set[str], entry: Entry) -> float:
    """Return the share of a question's words in a message; 1 if it has one of the further words."""
    asked = words_of(entry.question)
    if said & {word.casefold() for word in entry.words}:
        return 1.0
    return len(said & asked) / len(asked) if asked else 0.0


def plugin(settings: Settings) -> Plugin:
    """Create the plugin."""
    faq = Plugin("faq")

    @faq.command("faq")
    async def list_questions(ctx: Context) -> str:
        """List the questions that have an answer."""
        return "\n".join(f"• {entry.question}" for entry in settings.entries)

    @faq.message()
    async def answer(ctx: Context) -> str | Pass:
        """Answer the most similar question; pass other messages on to the next handlers."""
        said = words_of(ctx.text)
        best = max(settings.entries, key=lambda entry: likeness(said, entry))
        return best.answer if likeness(said, best) >= settings.threshold else PASS

    return faq
