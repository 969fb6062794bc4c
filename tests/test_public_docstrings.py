"""Everything that `chatbot` and `chatbot.testing` export is documented; elsewhere a name may speak for itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import chatbot
import chatbot.testing


def exported() -> Iterator[tuple[str, Any]]:
    """Yield every public class and function by name; Python gives values and aliases of types no docstring."""
    packages: list[ModuleType] = [chatbot, chatbot.testing]
    for package in packages:
        for name in package.__all__:
            thing = getattr(package, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield f"{package.__name__}.{name}", thing


def methods() -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of every exported class that chatbot itself defines."""
    for name, thing in exported():
        if not inspect.isclass(thing):
            continue
        for owner in thing.__mro__:
            if not owner.__module__.startswith("chatbot"):
                continue
            for attribute, value in vars(owner).items():
                function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                if not attribute.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                    yield f"{name}.{attribute}", getattr(thing, attribute)


def is_documented(thing: Any) -> bool:
    """Return whether a thing has a docstring, its own or an inherited one, that is more than dataclass's signature."""
    text = inspect.getdoc(thing) or ""
    return bool(text) and not (inspect.isclass(thing) and text.startswith(f"{thing.__name__}("))


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in exported()])
def test_a_public_name_has_a_docstring(name: str, thing: Any) -> None:
    assert is_documented(thing), name


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in dict(methods()).items()])
def test_a_public_method_has_a_docstring(name: str, thing: Any) -> None:
    assert is_documented(thing), name
