"""A plugin with a dialog as /talk, and a dialog that asks for a name and a color."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from chatbot import Context, Dialog, Plugin, Retry
from chatbot.dispatch.handler import Handler


class Deployed:
    """What a bot has as its plugin; at its next start this may be other code, as after a deployment."""

    def __init__(self, code: Plugin) -> None:
        self.code = code

    def handlers(self) -> Sequence[Handler]:
        return self.code.handlers()


def plugin_of(function: Callable[..., Awaitable[object]] | None, **options: object) -> Plugin:
    """A plugin with this dialog, if any, as /talk, a /time command, and an echo for all that no dialog takes."""
    plugin = Plugin("dialogs", **options)  # type: ignore[arg-type]
    if function is not None:
        plugin.command("talk", retry=Retry(attempts=2))(function)  # type: ignore[arg-type]

    @plugin.command("time")
    async def tell_time(ctx: Context) -> str:
        return "late"

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return f"echo {ctx.text}"

    return plugin


async def hello(talk: Dialog) -> str:
    name = await talk.ask("What is your name?")
    await talk.say(f"Hi {name}!")
    color = await talk.ask("And your color?")
    return f"{name} likes {color}."
