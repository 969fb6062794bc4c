"""`chatbot run --reload`: plugins change while their bots run."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Chat, Run

PLUGIN = """
from chatbot import Context, Plugin
from reloaded.words import greeting

plugin = Plugin("reloaded")

@plugin.message()
async def answer(ctx: Context) -> str:
    return greeting + "MARK"
"""
BOTS = """\
version: 1
service: emulator
bots:
  echo: {plugins: [reloaded.bot], poll: {interval: 300ms}}
"""


def write(path: Path, text: str) -> None:
    """Put a file in the place of another in one step, as editors do."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def test_changed_plugins_are_swapped_and_broken_ones_leave_the_old_at_work(
    tmp_path: Path, run: Run, chat: Chat
) -> None:
    plugin, words = tmp_path / "reloaded" / "bot.py", tmp_path / "reloaded" / "words.py"
    write(plugin, PLUGIN.replace("MARK", "one"))
    write(words, 'greeting = "hello "\n')
    (tmp_path / "bots.yaml").write_text(BOTS)
    bots = run(tmp_path, "--reload")
    bots.event("plugins.watched")
    assert "hello one" in chat(tmp_path, typed="hi\n").out

    write(plugin, PLUGIN.replace("MARK", "two"))
    bots.event("plugins.swapped", bot="echo", changed=["bot.py"])
    assert "hello two" in chat(tmp_path, typed="hi\n").out

    write(words, "greeting = (\n")
    problem = bots.event("plugins.kept")["problem"]
    assert problem.startswith("bots.yaml:4:")
    assert "words.py:1: '(' was never closed; mend the syntax" in problem
    assert "hello two" in chat(tmp_path, typed="hi\n").out

    write(words, 'greeting = "welcome "\n')
    bots.event("plugins.swapped", changed=["words.py"])
    assert "welcome two" in chat(tmp_path, typed="hi\n").out

    assert bots.stop() == 0
