"""Echo messages: a text is sent back unchanged, and `/echo TEXT` sends TEXT."""

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
