"""Migrations of stored states: convert what an older version of a state's class has stored.

They are static methods of the class itself. The version of a class is one more than its last migration's.
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
    """A static method that converts one version of a class to the next; see `migration`."""

    from_version: int


def migration(*, from_version: int) -> Callable[[F], F]:
    """Mark a static method of a state's class as the migration from this version to the next; the first version is 1.

    ::

        @dataclass(frozen=True)
        class Cart:
            items: dict[str, int] = field(default_factory=dict)  # was a list in version 1

            @migration(from_version=1)
            @staticmethod
            def count_items(stored: dict[str, Any]) -> dict[str, Any]:
                return {"items": dict.fromkeys(stored["items"], 1)}

    A new field with a default needs no migration. Every other change of the fields does: without one, stored states
    cannot be read, and handlers that ask for them fail.

    Args:
        from_version: the version that it converts from; each version, beginning with 1, needs one.
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
    """Return the migrations of a class, in order.

    Raises:
        TypeError: one is missing, or there are two from the same version.
    """
    found = sorted(
        (member for member in vars(cls).values() if isinstance(member, Migration)),
        key=lambda migration: migration.from_version,
    )
    versions = [migration.from_version for migration in found]
    if versions != list(range(1, len(found) + 1)):
        shown = ", ".join(map(str, versions))
        msg = f"{cls.__qualname__} has migrations from versions {shown}; write one from each version, beginning with 1"
        raise TypeError(msg)
    return found
