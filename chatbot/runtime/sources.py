"""Detect changed Python files in the directory of bots.yaml, and reload the plugins that consist of them.

Dependencies are read from import statements. A module imported in another way counts as a dependency of every bot.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType
from typing import Final

from msgspec import Struct

from chatbot.config import BotConfig, Config
from chatbot.runtime.plugins import Plugins, load_plugins

_NEVER_OWN: Final = ("chatbot", "__main__", "tests", "conftest")


class _Source(Struct, frozen=True):
    """A module as it was imported.

    Args:
        file: Its source file; None for a namespace package.
        digest: SHA-256 of the file.
        imports: Names of the modules that it may import.
    """

    file: Path | None
    digest: bytes
    imports: frozenset[str]


class Loaded(Struct, frozen=True):
    """Result of a load.

    Args:
        plugins: Plugins of each requested bot and of each bot whose code has changed.
        changes: Names of the changed files, by bot.
    """

    plugins: Plugins
    changes: Mapping[str, Sequence[str]]


class Sources:
    """Track the modules imported from one directory. The methods read files, so call them in a thread.

    Args:
        directory: The directory of bots.yaml.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, _Source] = {}

    def load(self, config: Config, names: Collection[str] | None = None) -> Loaded:
        """Load the plugins of all bots, or of the named bots and those whose code has changed since its import.

        Modules whose files have changed are reimported, and so are the modules that import them.

        Raises:
            ConfigError: Some plugins cannot be used. The previously imported modules stay in place.
        """
        changed = self._changed()
        stale = self._stale(changed, config)
        # Taken before the import: a file that changes during the import must count as changed next time.
        digests = {name: _digest(self._known[name].file) for name in stale}
        changes = {
            name: self._names_of(changed & self._reachable_modules([bot]))
            for name, bot in config.bots.items()
            if stale & self._roots([bot])
        }
        with _forgetting_modules(stale, self._directory):
            plugins = load_plugins(config, None if names is None else {*names, *changes})
        if stale:
            _clear_type_caches()
        self._known = {
            name: known if name not in stale and (known := self._known.get(name)) else _read(name, module, digests)
            for name, module in _own_modules(self._directory)
        }
        return Loaded(plugins, changes)

    def linked_directories(self) -> frozenset[Path]:
        """Return the directories outside the watched one that contain its modules, through symbolic links."""
        ours = os.path.realpath(self._directory)
        files = (os.path.realpath(source.file) for source in list(self._known.values()) if source.file)
        return frozenset(parent for file in files if not (parent := Path(file).parent).is_relative_to(ours))

    def _names_of(self, modules: Collection[str]) -> list[str]:
        return sorted({file.name for module in modules if (file := self._known[module].file)})

    def _changed(self) -> frozenset[str]:
        return frozenset(name for name, source in self._known.items() if _digest(source.file) != source.digest)

    def _stale(self, changed: Collection[str], config: Config) -> frozenset[str]:
        """Return the modules that a reimport would change."""
        stale = set(changed)
        if stale - self._reachable_modules(config.bots.values(), explicit_only=True):
            return frozenset(self._known)  # no import statement shows who uses it, so every module may
        while more := {name for name, source in self._known.items() if source.imports & stale} - stale:
            stale |= more
        return frozenset(stale)

    def _roots(self, bots: Collection[BotConfig]) -> frozenset[str]:
        return frozenset(plugin.module for bot in bots for plugin in bot.plugins)

    def _reachable_modules(self, bots: Collection[BotConfig], *, explicit_only: bool = False) -> frozenset[str]:
        """Return the modules that the plugins of these bots consist of.

        Args:
            only_said: Follow import statements only. Otherwise include modules that no import statement names.
        """
        reached = set(self._roots(bots)) & self._known.keys()
        while more := {one for name in reached for one in self._known[name].imports & self._known.keys()} - reached:
            reached |= more
        if explicit_only:
            return frozenset(reached)
        named = {one for source in self._known.values() for one in source.imports}
        return frozenset(reached | (self._known.keys() - named - self._roots(bots)))


@contextmanager
def _forgetting_modules(names: Collection[str], directory: Path) -> Iterator[None]:
    """Remove these modules from `sys.modules` for reimport, and restore all of them if the block fails."""
    before = dict(_own_modules(directory))
    forgotten = {name: module for name, module in before.items() if name in names}
    for name, module in forgotten.items():
        del sys.modules[name]
        _drop_cache(module)
        package, child = _package_of(name)
        if getattr(package, child, None) is module:
            delattr(package, child)  # `from package import module` would return the old module from this attribute
    try:
        yield
    except BaseException:
        for name in [name for name, _ in _own_modules(directory) if name not in before]:
            del sys.modules[name]
        sys.modules.update(forgotten)
        for name, module in forgotten.items():
            package, child = _package_of(name)
            if package is not None:
                setattr(package, child, module)
        raise


def _clear_type_caches() -> None:
    """Clear the caches of `typing`: a cached form such as `State[Cart]` keeps the old module of its class alive.

    The caches hold 128 forms each and refill on demand; only speed depends on them.
    """
    for clear in getattr(typing, "_cleanups", ()):  # no public API exists; CPython's leak tests use this one
        clear()


def _package_of(name: str) -> tuple[ModuleType | None, str]:
    """Return the parent package of a module, if imported, and the module's name in it."""
    package, _, child = name.rpartition(".")
    return sys.modules.get(package), child


def _own_modules(directory: Path) -> Iterator[tuple[str, ModuleType]]:
    """Yield the modules imported from the directory, except installed packages and chatbot itself."""
    root = _Root(directory)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _NEVER_OWN:
            continue
        file = getattr(module, "__file__", None)
        if root.owns_file(file) if file else any(map(root.owns, filter(None, getattr(module, "__path__", ())))):
            yield name, module


class _Root:
    """The directory of bots.yaml, asked about thousands of modules: most of them lie in few other directories."""

    def __init__(self, directory: Path) -> None:
        self._given = os.path.normcase(os.path.abspath(directory))
        self._real = os.path.normcase(os.path.realpath(directory))
        self._is_near: dict[str, bool] = {}

    def owns_file(self, file: str) -> bool:
        """Return whether a file belongs to the directory; see `owns`. Most are told by their directory alone."""
        directory = os.path.dirname(file)
        is_near = self._is_near.get(directory)
        if is_near is None:
            is_near = self._is_near[directory] = any(_is_below(path, root) for path, root in self._places(directory))
        return (is_near or os.path.islink(file)) and self.owns(file)

    def owns(self, place: str) -> bool:
        """Return whether a path belongs to the directory; a link inside it does, wherever it leads."""
        for path, root in self._places(place):
            if _is_below(path, root):
                parts = path[len(root) :].split(os.sep)
                return "site-packages" not in parts and not any(part.startswith(".") for part in parts)
        return False

    def _places(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield a path and the directory, both as they are given, then both without links."""
        yield os.path.normcase(os.path.abspath(path)), self._given
        yield os.path.normcase(os.path.realpath(path)), self._real


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(os.path.join(root, ""))


def _drop_cache(module: ModuleType) -> None:
    """Delete the compiled file: Python takes it for current if the source changed within a second to the same size."""
    if module.__file__ and module.__file__.endswith(".py"):
        with suppress(OSError):  # a file system that is read-only, for example
            Path(cache_from_source(module.__file__)).unlink(missing_ok=True)


def _read(name: str, module: ModuleType, digests: Mapping[str, bytes]) -> _Source:
    """Record a module.

    Args:
        digests: Digests taken just before the import, where available. A file that changes during the import must
            count as changed at the next load, so its digest must not be taken afterwards.
    """
    place = getattr(module, "__file__", None)
    file = Path(place) if place else None
    parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
    if file is None:
        return _Source(None, b"", frozenset(parents))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _Source(file, digests.get(name) or _digest(file), frozenset(parents | set(_imports(file, package))))


def _digest(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b"gone"


def _imports(file: Path, package: str) -> Iterator[str]:
    """Yield the names of all modules that the import statements of a file may refer to, with their packages."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield from _with_parents(f"{origin}.{alias.name}")


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])
