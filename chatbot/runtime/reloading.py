"""Swaps plugins while their bots run, when their files change: for the author who tries things out.

Everything that was imported from the directory of bots.yaml is imported anew. What cannot be loaded, or started,
leaves the old plugins at work, and the log says why.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType

import anyio.to_thread
import structlog

from chatbot.bot import Bot
from chatbot.config import Config
from chatbot.errors import ChatbotError, ConfigError
from chatbot.runtime.assemble import Plugins, load_plugins

DEBOUNCE_MS = 300
"""How long further changes are waited for: an editor writes a file in several steps."""


class Reloader:
    """The plugins of running bots, and what replaces them.

    Args:
        config: which plugins, and where they are.
        plugins: those at work.
        bots: who works with them.
    """

    def __init__(self, config: Config, plugins: Plugins, bots: Sequence[Bot]) -> None:
        self._config = config
        self._plugins = dict(plugins)
        self._bots = bots
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Reload whenever a file of Python's changes in the directory of bots.yaml."""
        from watchfiles import PythonFilter, awatch  # here, because only who reloads shall pay for it

        self._log.info("plugins.watched", directory=str(self._config.directory))
        async for changes in awatch(self._config.directory, watch_filter=PythonFilter(), debounce=DEBOUNCE_MS):
            names = sorted({Path(path).name for _, path in changes})
            await self.reload(names)

    async def reload(self, changed: Sequence[str] = ()) -> None:
        """Load all plugins again, and give each bot its new ones."""
        try:
            plugins = await anyio.to_thread.run_sync(load_anew, self._config)
        except ConfigError as error:
            for problem in error.problems:
                self._log.error("plugins.kept", problem=problem)
            return
        for bot in self._bots:
            await self._swap(bot, plugins, changed)

    async def _swap(self, bot: Bot, plugins: Plugins, changed: Sequence[str]) -> None:
        old, new = self._plugins[bot.name], plugins[bot.name]
        if all(a is b for a, b in zip(old, new, strict=True)):
            return
        try:
            await bot.take_on(new)
        except Exception as error:
            problem = str(error) if isinstance(error, ChatbotError) else f"{type(error).__name__}: {error}"
            self._log.error("plugins.kept", bot=bot.name, problem=problem, exc_info=error)
            return
        self._plugins[bot.name] = new
        self._log.info("plugins.swapped", bot=bot.name, changed=list(changed))


def load_anew(config: Config) -> Plugins:
    """Load all plugins from their files. Reads files: call it in a thread.

    Raises:
        ConfigError: some cannot be used; what was imported before is what is imported still.
    """
    old = dict(_own_modules(config.directory))
    for name, module in old.items():
        del sys.modules[name]
        _drop_cache(module)
    try:
        return load_plugins(config)
    except BaseException:
        for name in [name for name, _ in _own_modules(config.directory)]:
            del sys.modules[name]
        sys.modules.update(old)
        raise


def _own_modules(directory: Path) -> Iterator[tuple[str, ModuleType]]:
    """What was imported from the directory itself: not what is installed below it, and nothing of chatbot."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("chatbot", "__main__", "tests", "conftest"):
            continue
        places = [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", ()))
        if any(_is_own(Path(place), directory) for place in places if place):
            yield name, module


def _is_own(place: Path, directory: Path) -> bool:
    try:
        below = place.resolve().relative_to(directory.resolve())
    except (OSError, ValueError):
        return False
    return "site-packages" not in below.parts and not any(part.startswith(".") for part in below.parts)


def _drop_cache(module: ModuleType) -> None:
    """Forget the compiled form: it is taken for current if the file changed within the second, to the same size."""
    if module.__file__ and module.__file__.endswith(".py"):
        Path(cache_from_source(module.__file__)).unlink(missing_ok=True)
