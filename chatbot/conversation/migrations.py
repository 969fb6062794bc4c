"""Migrations: how a state that an older version of its class has left becomes one of today's.

They stand in the class itself, so that whoever uses it has them: its version is one more than its last migration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

Stored: TypeAlias = dict[str, Any]
"""The fields of a stored value, as JSON."""

F = TypeVar("F", bound=Callable[[Stored], Stored])

if TYPE_CHECKING:
    Static: TypeAlias = staticmethod[[Stored], Stored]
else:  # at run time it takes no parameters
    Static = staticmethod


class Migration(Static):
    """A function of a class that leads from one version of it to the next; see `migration`."""

    from_version: int


def migration(*, from_version: int) -> Callable[[F], F]:
    """Mark a static method of a state's class as the way from this version to the next; the first version is 1.

    ::

        @dataclass(frozen=True)
        class Cart:
            items: dict[str, int] = field(default_factory=dict)  # was a list in version 1

            @migration(from_version=1)
            @staticmethod
            def count_items(stored: dict[str, Any]) -> dict[str, Any]:
                return {"items": dict.fromkeys(stored["items"], 1)}

    A new field that has a default needs none. Whatever else changes the fields does: without it, what was stored
    cannot be read, and handlers that ask for it fail.

    Args:
        from_version: the version of what it is given; each of them, from 1, has one.
    """

    def mark(function: Any) -> Any:  # type checkers see a static method as the function it is made of
        if not isinstance(function, staticmethod):
            msg = f"@migration(from_version={from_version}) stands above a @staticmethod of the state's class"
            raise TypeError(msg)
        marked = Migration(function.__func__)
        marked.from_version = from_version
        return marked

    return mark


def migrations_of(cls: type) -> list[Migration]:
    """The migrations of a class, in order.

    Raises:
        TypeError: one is missing, or there are two from the same version.
    """
    found = sorted((one for one in vars(cls).values() if isinstance(one, Migration)), key=lambda one: one.from_version)
    versions = [one.from_version for one in found]
    if versions != list(range(1, len(found) + 1)):
        shown = ", ".join(map(str, versions))
        msg = f"{cls.__qualname__} has migrations from versions {shown}; write one from each version, beginning with 1"
        raise TypeError(msg)
    return found
