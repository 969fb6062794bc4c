"""Polls: `/poll "Lunch?" Pizza Pasta` asks, `/vote 2` votes, `/close` ends it. The votes are counted in the question.

The poll is one message, which is edited with every vote. A thread has one poll at a time. A second vote of a person
replaces the first.
"""

from dataclasses import dataclass, field

from chatbot import ActionKey, Context, Plugin, State, UserId

plugin = Plugin("poll")

BAR = "█"


@dataclass
class Poll:
    """A question, its options, and each person's vote."""

    question: str = ""
    options: list[str] = field(default_factory=list)
    votes: dict[UserId, int] = field(default_factory=dict)
    message: str = ""

    def shown(self, footer: str) -> str:
        """Return the question with its votes so far."""
        counts = [list(self.votes.values()).count(number) for number in range(len(self.options))]
        lines = [
            f"{number}. {option} {BAR * count} {count}"
            for number, (option, count) in enumerate(zip(self.options, counts, strict=True), 1)
        ]
        return "\n".join([self.question, *lines, footer])


@plugin.command("poll")
async def ask(ctx: Context, poll: State[Poll], question: str, *options: str) -> str | None:
    """Ask QUESTION with these OPTIONS."""
    if poll.value.question:
        return f"There is a poll already: {poll.value.question} Type /close to end it."
    if len(options) < 2:
        return 'A poll needs two options or more, as in /poll "Lunch?" Pizza Pasta'
    poll.value = Poll(question, list(options))
    sent = await ctx.reply(poll.value.shown("Vote with /vote and the number."))
    poll.value.message = sent.key
    return None


@plugin.command("vote")
async def vote(ctx: Context, poll: State[Poll], number: int) -> str | None:
    """Vote for option NUMBER."""
    if not poll.value.question:
        return "There is no poll to vote in."
    if not 1 <= number <= len(poll.value.options):
        return f"There is no option {number}; choose 1 to {len(poll.value.options)}."
    poll.value.votes[ctx.sender.user] = number - 1
    await ctx.edit(ActionKey(poll.value.message), poll.value.shown("Vote with /vote and the number."))
    return None


@plugin.command("close")
async def close(ctx: Context, poll: State[Poll]) -> str | None:
    """End the poll."""
    if not poll.value.question:
        return "There is no poll to close."
    await ctx.edit(ActionKey(poll.value.message), poll.value.shown("This poll is closed."))
    poll.value = Poll()
    return None
