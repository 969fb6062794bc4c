"""Show what the bot can do: `/help` lists its commands, `/help NAME` explains one."""

from chatbot import Context, Plugin

plugin = Plugin("help")


@plugin.command("help")
async def show_help(ctx: Context, name: str | None = None) -> str:
    """List the commands, or explain one."""
    if name is None:
        return "\n".join(f"{command.usage} — {command.summary}" for command in ctx.commands)
    for command in ctx.commands:
        if command.name == name.removeprefix("/").lower():
            return f"{command.usage}\n{command.summary}"
    return f"There is no command /{name.removeprefix('/')}. Type /help for all of them."
