"""Loading of plugins: resolves a reference in bots.yaml, imports the module and calls its factory.

A reference is the import path of a module below the directory of bots.yaml (`plugins.echo`) or of an installed module,
or the name of an entry point in the group `chatbot.plugins`. A mistake of the author raises `PluginError`, which begins
with file and line.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from chatbot.dispatch.registry import HandlerRegistry
from chatbot.dispatch.source_location import location, place_of_error
from chatbot.errors import PluginError, described
from chatbot.plugin.plugin import Plugin
from chatbot.plugin.settings import make_plugin, settings_model

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pydantic import BaseModel

ENTRY_POINTS: Final = "chatbot.plugins"
"""The entry point group in which installed packages declare their plugins."""

_NO_SUCH_NAME: Final = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


def load_plugin(reference: str, *, base_dir: Path, settings: Mapping[str, Any] | None = None) -> Plugin:
    """Import a plugin and check all its handlers. Reads files: call it before the event loop runs, or in a thread.

    Args:
        reference: an import path, `plugins.echo`, or the name of an entry point.
        base_dir: the directory of bots.yaml; it is put first on `sys.path` permanently.
        settings: the settings for the factory; None if there are none.

    Raises:
        PluginError: the plugin does not exist, cannot be imported, does not accept its settings, or has an invalid
            handler.
    """
    reference = unicodedata.normalize("NFC", reference)
    _check_reference(reference)
    base_dir = base_dir.absolute()  # not resolved: links may change their target until the next reload
    _prepend_to_path(base_dir)
    plugin = make_plugin(*_find(reference, base_dir), settings)
    HandlerRegistry(plugin.handlers())
    return plugin


def plugin_settings(reference: str, *, base_dir: Path) -> type[BaseModel] | None:
    """Return the model of a plugin's settings, or None if it takes none. Imports the plugin like `load_plugin`.

    Raises:
        PluginError: the plugin does not exist, cannot be imported, or has an invalid factory.
    """
    reference = unicodedata.normalize("NFC", reference)
    _check_reference(reference)
    base_dir = base_dir.absolute()  # not resolved: links may change their target until the next reload
    _prepend_to_path(base_dir)
    found, _ = _find(reference, base_dir)
    return None if isinstance(found, Plugin) or not callable(found) else settings_model(found)


def _find(reference: str, base_dir: Path) -> tuple[object, str]:
    """Return the plugin or factory, and its place."""
    installed = [] if _file_of(reference, base_dir) else _entry_points(reference)
    if len(installed) > 1:
        names = ", ".join(sorted(str(entry_point.value) for entry_point in installed))
        msg = f"plugin {reference}: several installed packages offer it: {names}; name the module instead"
        raise PluginError(msg)
    if installed and ":" in installed[0].value:
        module = _import(installed[0].module, base_dir)
        return _attribute(module, installed[0].attr), _place(module)
    module = _import(installed[0].module if installed else reference, base_dir)
    return _attribute(module, "plugin"), _place(module)


def _entry_points(*names: str) -> list[EntryPoint]:
    from importlib.metadata import entry_points  # imported late: it takes longer to import than all of chatbot

    found = entry_points(group=ENTRY_POINTS)
    return [entry_point for entry_point in found if not names or entry_point.name in names]


def _check_reference(reference: str) -> None:
    if not all(part.isidentifier() for part in reference.split(".")):
        msg = (
            f"plugin {reference!r} is not an import path; name the module, with dots and without .py, as in"
            " plugins.echo for plugins/echo.py next to bots.yaml"
        )
        raise PluginError(msg)
    top = reference.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("chatbot", "__main__"):
        owner = "chatbot itself" if top == "chatbot" else "Python itself"
        msg = f"plugin {reference}: that is a module of {owner}, not a plugin; give your module another name"
        raise PluginError(msg)


def _prepend_to_path(base_dir: Path) -> None:
    entry = str(base_dir)
    if sys.path[:1] != [entry]:
        sys.path[:] = [entry, *(path for path in sys.path if path != entry)]
    if _ComposedNames not in sys.meta_path:
        sys.meta_path.append(_ComposedNames)


class _ComposedNames:
    """Finds modules of the first directory on `sys.path` whose file names have decomposed accents (NFD).

    Python composes the names in import statements (NFKC) and then compares bytes, but macOS and some archives decompose
    file names.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        """Return the spec of a module that no other finder found."""
        last = name.rpartition(".")[2]
        if last.isascii():
            return None
        for directory in map(Path, sys.path[:1] if path is None else path):
            package = directory / _spelled(directory, last)
            if (package / "__init__.py").is_file():
                places = [str(package)]
                return spec_from_file_location(name, package / "__init__.py", submodule_search_locations=places)
            module = directory / _spelled(directory, f"{last}.py")
            if module.is_file():
                return spec_from_file_location(name, module)
        return None


def _spelled(directory: Path, name: str) -> str:
    """Return the name as the directory spells it, composed or decomposed."""
    if name.isascii() or (directory / name).exists():
        return name
    with suppress(OSError):
        for entry in os.listdir(directory):
            if unicodedata.normalize("NFC", entry) == unicodedata.normalize("NFC", name):
                return entry
    return name


def _spelled_path(base_dir: Path, parts: Sequence[str]) -> Path:
    path = base_dir
    for part in parts:
        path /= _spelled(path, part)
    return path


def _import(reference: str, base_dir: Path) -> ModuleType:
    importlib.invalidate_caches()
    _ensure_found_below(reference, base_dir)
    try:
        return importlib.import_module(reference)
    except PluginError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{reference}.".startswith(f"{error.name}."):
            raise PluginError(_no_such_module(reference, base_dir)) from None
        place = place_of_error(error) or reference
        msg = f"{place}: there is no module {error.name!r}; install it, or correct the import"
        raise PluginError(msg) from error
    except PermissionError as error:
        msg = f"plugin {reference}: {error.filename} cannot be read: {error.strerror}; let this user read it"
        raise PluginError(msg) from error
    except ImportError as error:
        raise PluginError(_not_importable(reference, error)) from error
    except SyntaxError as error:
        msg = f"{location(error.filename or reference, error.lineno)}: {error.msg}; correct the syntax"
        raise PluginError(msg) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(_import_failed(reference, error)) from error


def _not_importable(reference: str, error: ImportError) -> str:
    found = _NO_SUCH_NAME.match(str(error))
    if found is None or "partially initialized" in str(error):
        return _import_failed(reference, error)
    name, module = found.groups()
    import difflib  # here: nearly no daemon needs it

    near = difflib.get_close_matches(name, dir(sys.modules.get(module)), n=1)
    hint = f"did you mean {near[0]}?" if near else "correct the import"
    return f"{place_of_error(error) or reference}: there is no {name!r} in {module}; {hint}"


def _import_failed(reference: str, error: BaseException) -> str:
    where = place_of_error(error) or reference
    return f"{where}: importing {reference} failed: {described(error)}; a plugin must import without that"


def _ensure_found_below(reference: str, base_dir: Path) -> None:
    """Ensure that the module of `base_dir` is found, even if another one has the same name.

    Loaded modules of that name from other places are dropped. A directory without `__init__.py` is made a package here,
    because a directory of the same name with that file, anywhere on `sys.path`, would take precedence.
    """
    expected = _file_of(reference, base_dir)
    if expected is None:
        return
    loaded, parts = sys.modules.get(reference), reference.split(".")
    top = sys.modules.get(parts[0])
    if (loaded and not _is_file(loaded, expected)) or (top and not _is_below(top, base_dir)):
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{parts[0]}.")]:
            del sys.modules[name]
    for length in range(1, len(parts)):
        name, directory = ".".join(parts[:length]), _spelled_path(base_dir, parts[:length])
        if name not in sys.modules and not (directory / "__init__.py").is_file():
            sys.modules[name] = _package(name, directory)


def _package(name: str, directory: Path) -> ModuleType:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(directory)]
    return module_from_spec(spec)


def _file_of(reference: str, base_dir: Path) -> Path | None:
    *packages, module = reference.split(".")
    directory = _spelled_path(base_dir, packages)
    for file in (
        directory / _spelled(directory, module) / "__init__.py",
        directory / _spelled(directory, f"{module}.py"),
    ):
        try:
            if file.is_file():
                return file
        except PermissionError as error:
            msg = f"plugin {reference}: {file} cannot be looked at: {error.strerror}; let this user read its directory"
            raise PluginError(msg) from error
    return None


def _is_file(module: ModuleType, file: Path) -> bool:
    if module.__file__ is None:
        return False
    return Path(module.__file__) == file or os.path.realpath(module.__file__) == os.path.realpath(file)


def _is_below(module: ModuleType, base_dir: Path) -> bool:
    places = [module.__file__] if module.__file__ else list(getattr(module, "__path__", ()))
    return any(is_below(Path(place), base_dir) for place in places)


def is_below(place: Path, directory: Path) -> bool:
    """Return whether a path is below a directory, before or after resolving links.

    A package that is a link belongs to the directory of the link, regardless of its target.
    """
    if Path(os.path.abspath(place)).is_relative_to(os.path.abspath(directory)):
        return True
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(directory))


def _attribute(module: ModuleType, name: str) -> object:
    found = getattr(module, name, None)
    if found is not None:
        return found
    plugins = [key for key, value in vars(module).items() if isinstance(value, Plugin)]
    shown = module.__name__.rpartition(".")[2]
    remedy = f"rename {plugins[0]!r} to `{name}`" if plugins else f'write `{name} = Plugin("{shown}")`'
    msg = f"{_place(module)}: the module {module.__name__} has no `{name}`; {remedy}"
    raise PluginError(msg)


def _place(module: ModuleType) -> str:
    return location(module.__file__, None) if module.__file__ else module.__name__


def _no_such_module(reference: str, base_dir: Path) -> str:
    known = [".".join(file.relative_to(base_dir).with_suffix("").parts) for file in base_dir.glob("*/*.py")]
    known += [file.stem for file in base_dir.glob("*.py")]
    known += [entry_point.name for entry_point in _entry_points()]
    import difflib  # here: nearly no daemon needs it

    near = difflib.get_close_matches(reference, known, n=1)
    expected = Path(*reference.split(".")).with_suffix(".py")
    hint = f"did you mean {near[0]}?" if near else f"write {expected} there, or install the package that brings it"
    return (
        f"plugin {reference}: there is no such module in {location(str(base_dir), None)}, and none is installed; {hint}"
    )
