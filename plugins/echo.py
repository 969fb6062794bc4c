"""Says what it hears: any text comes back as it is, and `/echo TEXT` as TEXT."""

from chatbot import Context, Plugin, Rest

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    """Say the same."""
    return ctx.text


@plugin.command("echo")
async def echo_command(ctx: Context, text: Rest) -> str:
    """Say TEXT."""
    return text
