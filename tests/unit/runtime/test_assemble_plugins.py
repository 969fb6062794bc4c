from pathlib import Path

import pytest

from chatbot.config import load_config
from chatbot.errors import ConfigError
from chatbot.runtime.plugins import load_plugins

pytestmark = pytest.mark.usefixtures("imports_restored")

ROLL = """\
from chatbot import Context, Plugin
plugin = Plugin("dice")
@plugin.command("roll")
async def roll(ctx: Context, count: int) -> str:
    return str(count)
"""

FAQ = """\
from chatbot import Plugin
from pydantic import BaseModel
class Settings(BaseModel):
    limit: int = 3
def plugin(settings: Settings) -> Plugin:
    return Plugin("faq")
"""


def problems(tmp_path: Path, plugins: str) -> list[str]:
    file = tmp_path / "bots.yaml"
    file.write_text(f"version: 1\nservice: emulator\nbots:\n  desk:\n    plugins:\n{plugins}")
    with pytest.raises(ConfigError) as caught:
        load_plugins(load_config(file, {}))
    shown = [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]
    return [line for line in shown if line.startswith("bots.yaml")]


def test_two_plugins_of_a_bot_with_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ROLL)
    (tmp_path / "two.py").write_text('from chatbot import Plugin\nplugin = Plugin("dice")\n')

    assert problems(tmp_path, "      - one\n      - two\n") == [
        "bots.yaml:7:9: bots.desk.plugins[1]: two.py:2: plugin 'dice' has the name of another one, one.py:2; rename one"
        " of them"
    ]


def test_a_plugin_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ROLL)

    assert problems(tmp_path, "      - one\n      - one\n") == [
        "bots.yaml:7:9: bots.desk.plugins[1]: one.py:2: plugin 'dice' is listed twice; take one out"
    ]


def test_two_plugins_of_a_bot_with_the_same_command_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ROLL)
    (tmp_path / "two.py").write_text(ROLL.replace('"dice"', '"more dice"'))

    assert problems(tmp_path, "      - one\n      - two\n") == [
        "bots.yaml:6:7: bots.desk.plugins: two.py:3: command /roll is taken already, by one.py:3; rename one of them"
    ]


def test_wrong_settings_of_a_plugin_are_reported_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "faq.py").write_text(FAQ)

    assert problems(tmp_path, "      - module: faq\n        settings: {limits: 1, limit: x}\n") == [
        "bots.yaml:7:28: bots.desk.plugins[0].settings.limits: there is no such setting;"
        " did you mean limit? (faq.py:5)",
        "bots.yaml:7:38: bots.desk.plugins[0].settings.limit: Input should be a valid integer,"
        " unable to parse string as an integer (faq.py:5)",
    ]
