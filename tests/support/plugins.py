"""Plugins that several tests use: as an object, and as the source of a module."""

from __future__ import annotations

from typing import Final

from chatbot import Context, Plugin


def echo() -> Plugin:
    """A plugin that repeats what people say."""
    plugin = Plugin("echo")

    @plugin.message()
    async def repeat(ctx: Context) -> str:
        return ctx.text

    return plugin


ECHO: Final = """
from chatbot import Context, Plugin

plugin = Plugin("echo")

@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""
