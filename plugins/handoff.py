"""Hand over to a human: `/human` adds the agents to the thread, and the bot does not answer while one is there.

List it before the plugins that it silences. The bot answers again when no agent is left in the thread, or after
`/bot`. In bots.yaml:

    plugins:
      - module: plugins.handoff
        settings:
          agents:
            - user: 8:acs:…
              display_name: Bea
      - plugins.faq
"""

from pydantic import BaseModel, Field

from chatbot import PASS, Context, Participant, ParticipantsRemoved, Pass, Plugin, Rest, ThreadEvent, UserId


class Agent(BaseModel):
    """A human who takes over from the bot."""

    user: UserId
    display_name: str


class Settings(BaseModel):
    """The agents who are added to the thread."""

    agents: list[Agent] = Field(min_length=1)


def plugin(settings: Settings) -> Plugin:
    """Create the plugin."""
    handoff = Plugin("handoff")
    agents = {agent.user: Participant(agent.user, agent.display_name) for agent in settings.agents}
    names = " and ".join(agent.display_name for agent in settings.agents)

    async def present(ctx: Context[ThreadEvent]) -> list[Participant]:
        return [person for person in await ctx.participants() if person.user in agents]

    @handoff.command("human")
    async def call(ctx: Context, question: Rest = "") -> str:
        """Bring a human into this chat."""
        if await present(ctx):
            return "A human is here already."
        await ctx.add_participants(*agents.values())
        about = f" about: {question}" if question else ""
        return f"{ctx.sender.display_name or 'Somebody'} asks for a human{about}\nI have called {names}."

    @handoff.command("bot")
    async def back(ctx: Context) -> str | None:
        """Let the human go and the bot answer again."""
        here = await present(ctx)
        for agent in here:
            await ctx.remove_participant(agent)
        return None if here else "I am here."

    @handoff.message()
    async def keep_quiet(ctx: Context) -> Pass | None:
        """Take every message while a human is there, without an answer."""
        return None if await present(ctx) else PASS

    @handoff.on(ParticipantsRemoved)
    async def take_over(ctx: Context[ParticipantsRemoved]) -> str | Pass:
        """Announce the bot when the last human has left."""
        was_agent = any(person.user in agents for person in ctx.event.participants)
        return "I am back." if was_agent and not await present(ctx) else PASS

    return handoff
