"""What differs between the configuration in force and the one to come, sorted by what it takes to apply it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from chatbot.config import BotConfig, Config

LIVE: Final = ("log", "drain_timeout", "retention", "server", "reload")
"""Settings of the whole process that can change while it runs."""

_APART: Final = frozenset({"version", "include", "bots"})


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences, by name.

    Args:
        added: bots that there were not.
        removed: bots that there are no more.
        restarted: bots whose own settings have changed.
        replugged: bots of which only the plugins, or their settings, have changed.
        applied: settings of the whole process that can change now.
        postponed: those that only another process can take up.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    replugged: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    postponed: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Config, new: Config) -> Self:
        """The differences.

        Args:
            old: the configuration in force.
            new: the one to come.
        """
        kept = [name for name in new.bots if name in old.bots and new.bots[name] != old.bots[name]]
        replugged = [name for name in kept if _without_plugins(new.bots[name]) == _without_plugins(old.bots[name])]
        names = [name for name in type(new).model_fields if name not in _APART]
        differing = [name for name in names if getattr(new, name) != getattr(old, name)]
        return cls(
            added=tuple(name for name in new.bots if name not in old.bots),
            removed=tuple(name for name in old.bots if name not in new.bots),
            restarted=tuple(name for name in kept if name not in replugged),
            replugged=tuple(replugged),
            applied=tuple(name for name in differing if name in LIVE),
            postponed=tuple(name for name in differing if name not in LIVE),
        )

    def applied_to(self, old: Config, new: Config) -> Config:
        """The configuration that is in force once everything was done that can be done now."""
        return new.model_copy(update={name: getattr(old, name) for name in self.postponed})


def _without_plugins(bot: BotConfig) -> dict[str, object]:
    return {name: getattr(bot, name) for name in type(bot).model_fields if name != "plugins"}
