"""`chatbot new`: create a plugin, its test, and its bot in a bots.yaml.

The bot is inserted into the text of bots.yaml, so that comments, order and blank lines of the file stay.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from cyclopts import Parameter

import chatbot
from chatbot.config import load_config
from chatbot.distribution import shadowed, shadowing_path
from chatbot.errors import ConfigError, UnknownName


def with_bot(text: str, name: str, lines: Sequence[str], *, file: str) -> str:
    """Return the text with another bot, after the existing ones.

    Args:
        text: of a valid configuration; its bots may all be in files that it includes.
        name: of the new bot.
        lines: its settings, not indented.
        file: the name of the file, for problems.

    Raises:
        ConfigError: nothing can be added to the bots as they are written.
    """
    bots = _bots(text, file)
    if bots is None:
        return "\n".join([*text.splitlines(), "", "bots:", f"  {name}:", *(f"    {line}" for line in lines)]) + "\n"
    key, last = bots.value[-1]
    column = key.start_mark.column
    indent = " " * column
    added = [f"{indent}{name}:", *(f"{indent}  {line}" for line in lines)]
    before = text.splitlines()
    end = _end(last) + 1
    while end < len(before) and _is_comment_of(before[end], column):
        end += 1
    gap = [""] if any(not line.strip() for line in before[bots.start_mark.line : end]) else []
    return "\n".join([*before[:end], *gap, *added, *before[end:]]) + "\n"


def _bots(text: str, file: str) -> yaml.MappingNode | None:
    """Return the node of `bots`; None if the key is missing."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    value = entries.get("bots")
    if value is None:
        return None
    if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
        return value
    msg = f"{file}: no bot can be added, because `bots` is not a list of indented lines; add the entry yourself"
    raise ConfigError(msg)


def _end(node: yaml.Node) -> int:
    """Return the last line of a value; the end mark of a block mapping is the start of what follows."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    is_beyond = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") and node.end_mark.column == 0
    return int(node.end_mark.line) - (1 if is_beyond else 0)


def _is_comment_of(line: str, column: int) -> bool:
    """Return whether a line is a comment about the last bot, that is, indented further than the bots' names."""
    bare = line.lstrip()
    return bare.startswith("#") and len(line) - len(bare) > column


_PLUGIN = '''"""What {name} does."""

from chatbot import Context, Plugin

plugin = Plugin("{name}")


@plugin.command("{command}")
async def hello(ctx: Context, name: str = "") -> str:
    """Greet NAME, or whoever asks."""
    return f"Hello, {{name or ctx.sender.display_name or 'there'}}!"


@plugin.message()
async def echo(ctx: Context) -> str:
    """Repeat the message; replace this with your own reply."""
    return ctx.text
'''

_TEST = """import pytest

from chatbot.testing import chat
from plugins.{module} import plugin


@pytest.mark.virtual_time
async def test_{module}_greets_and_repeats_messages() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("/{command}", "/{command} Bob", "good day")

        assert room.replies == ["Hello, Ann!", "Hello, Bob!", "good day"]
"""

_BOTS = """\
# Start the bots:              chatbot run
# Talk to them:                chatbot chat
# Check the configuration:     chatbot check

version: 1
service: ${{ACS_CONNECTION_STRING:-emulator}}
store: sqlite:///chatbot.db

bots:
  {name}:
"""

_RESERVED = {*keyword.kwlist, "true", "false", "null", "none"}
"""Words that mean something else to Python or YAML."""

_CONFTEST = '"""Lets the tests import `plugins` from this directory, however pytest is started."""\n'

_PYTEST_INI = """\
[pytest]
pythonpath = .
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

_PYTEST_CONFIG_FILES = ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""Files that may configure pytest."""


def new(
    name: Annotated[str | None, Parameter(help="Name of the plugin and its bot, such as dice.")] = None,
    /,
    *,
    source: Annotated[
        str | None, Parameter(name="--from", help="A ready-made plugin to start from; see --list.")
    ] = None,
    list_them: Annotated[
        bool, Parameter(name="--list", negative="", show_default=False, help="List the ready-made plugins and exit.")
    ] = False,
    config: Annotated[
        Path, Parameter(help="The configuration to add the bot to; created if it does not exist.")
    ] = Path("bots.yaml"),
) -> int:
    """Create a plugin, its test, and its bot in a bots.yaml."""
    if list_them:
        print("\n".join(f"{known:<10} {example.summary}" for known, example in plugin_templates().items()))
        return 0
    if name is None:
        msg = f"name the plugin: chatbot new {source or 'dice'}"
        raise UnknownName(msg)
    directory = config.parent
    if (hidden_by := shadowing_path(directory)) is not None:
        raise ConfigError(shadowed(hidden_by))
    module = _module_of(name)
    plugin, test = directory / "plugins" / f"{module}.py", directory / "tests" / f"test_{module}.py"
    entry = [f"plugins: [plugins.{module}]"]
    if source is None:
        files = {
            plugin: _PLUGIN.format(name=name, command=_command_of(name)),
            test: _TEST.format(module=module, command=_command_of(name)),
        }
    else:
        example = _template(source)
        files = {plugin: example.code.replace(f'Plugin("{source}")', f'Plugin("{name}")')}
        entry = example.entry(module) or entry
    for path in files:
        if path.exists():
            msg = f"{path}: this file already exists; choose another name, or move the file"
            raise ConfigError(msg)
    files |= _missing_setup(directory)
    files[config] = _configured(config, name, entry)
    _write(files)
    print(f"Created {', '.join(str(path) for path in files)}.")
    if source is None:
        print(f"Run its test:  {_shown(sys.executable)} -m pytest {test}")
    else:
        print(f"Settings:      its bot in {config}, and the first lines of {plugin}")
    print(f"Run the bot:   chatbot run {config}")
    return 0


def _missing_setup(directory: Path) -> dict[Path, str]:
    """Return the files with which Python and pytest find the plugins, as far as the directory lacks them."""
    files: dict[Path, str] = {}
    package = directory / "plugins" / "__init__.py"
    if not package.exists():
        files[package] = '"""The bots\' plugins."""\n'
    if not _can_import_plugins(directory):
        name, content = ("conftest.py", _CONFTEST) if _is_in_a_project(directory) else ("pytest.ini", _PYTEST_INI)
        files[directory / name] = content
    return files


@dataclass(frozen=True, slots=True)
class PluginTemplate:
    """A plugin to copy.

    Args:
        name: of its module.
        code: its source, which begins with a docstring.
    """

    name: str
    code: str

    @property
    def summary(self) -> str:
        """Return the first sentence of its docstring."""
        return self._doc.partition("\n")[0]

    def entry(self, module: str) -> list[str]:
        """Return the lines of a bot with the settings that its docstring shows; none if it shows none."""
        shown = re.search(
            rf"^    plugins:\n      - module: plugins\.{self.name}\n((?:       ? .*\n)*)", self._doc, re.MULTILINE
        )
        if shown is None:
            return []
        settings = [line.removeprefix("    ") for line in shown.group(1).splitlines()]
        return ["plugins:", f"  - module: plugins.{module}", *settings]

    @property
    def _doc(self) -> str:
        return ast.get_docstring(ast.parse(self.code), clean=False) or ""


def plugin_templates() -> dict[str, PluginTemplate]:
    """Return the ready-made plugins by name, from the wheel or from the directory `plugins` of a clone."""
    package = Path(chatbot.__file__).parent
    found = next((place for place in (package / "examples", package.parent / "plugins") if place.is_dir()), None)
    files = sorted(found.glob("[a-z]*.py")) if found else []
    return {file.stem: PluginTemplate(file.stem, file.read_text("utf-8")) for file in files}


def _template(source: str) -> PluginTemplate:
    known = plugin_templates()
    if source not in known:
        msg = f"there is no ready-made plugin {source!r}; choose one of {', '.join(known)}"
        raise UnknownName(msg)
    return known[source]


def _configured(config: Path, name: str, entry: Sequence[str]) -> str:
    """Return the configuration with the bot added; an existing file must be valid before it is changed."""
    lines = [f"display_name: {name.replace('-', ' ').replace('_', ' ').capitalize()}", *entry]
    if not config.exists():
        return _BOTS.format(name=name) + "".join(f"    {line}\n" for line in lines)
    settings = load_config(config, os.environ)
    if name in settings.bots:
        raise ConfigError(settings.problem(("bots", name), "a bot of this name already exists; choose another name"))
    return with_bot(config.read_text("utf-8-sig"), name, lines, file=str(config))


def _module_of(name: str) -> str:
    module = name.replace("-", "_").lower()
    if module in _RESERVED:
        msg = (
            f"{name!r} cannot name a plugin: the word has another meaning in Python or YAML; choose a name such as dice"
        )
        raise ConfigError(msg)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        msg = f"{name!r} cannot name a plugin: use letters, digits, - and _, starting with a letter, such as dice"
        raise ConfigError(msg)
    return module


def _command_of(name: str) -> str:
    return name.lower()


def _can_import_plugins(directory: Path) -> bool:
    """Return whether tests can already import from here, by a conftest.py or by a setting of pytest."""
    if (directory / "conftest.py").exists():
        return True
    told = (directory / name for name in _PYTEST_CONFIG_FILES)
    return any(file.exists() and "pythonpath" in file.read_text("utf-8", errors="replace") for file in told)


def _is_in_a_project(directory: Path) -> bool:
    """Return whether this directory or one above has a file that may configure pytest."""
    here = directory.absolute()
    return any((place / name).exists() for place in (here, *here.parents) for name in _PYTEST_CONFIG_FILES)


def _write(files: Mapping[Path, str]) -> None:
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            msg = f"{path}: cannot be written: {os.strerror(error.errno or 0)}"
            raise ConfigError(msg) from None


def _shown(executable: str) -> str:
    """Return the interpreter as a person would type it."""
    try:
        return str(Path(executable).relative_to(Path.cwd()))
    except ValueError:
        return "python"
