"""Whom a person means who types a name behind a command: one of those in the thread. Pure.

Rules:
    1. The whole display name counts, in any case, with or without @; or its first words, if only one begins so.
    2. An id of the service is always right, also for somebody who is not in the thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chatbot.dispatch.arguments import BadArguments, Values
from chatbot.dispatch.conversion import Somebody
from chatbot.model import Participant, UserId
from chatbot.normalization import fold_name


@dataclass(frozen=True, slots=True)
class People:
    """Who is in a thread, to be found by what somebody typed."""

    everyone: Sequence[Participant]

    def fill(self, values: Values) -> Values:
        """The values with people in the place of names.

        Raises:
            BadArguments: nobody is called so, or several are.
        """
        named = {name: self._found(value) for name, value in values.named.items()}
        return replace(values, named=named, many=[self._found(value) for value in values.many])

    def _found(self, value: object) -> object:
        return self.called(value.name) if isinstance(value, Somebody) else value

    def called(self, name: str) -> Participant:
        """The one of this name.

        Raises:
            BadArguments: nobody is called so, or several are.
        """
        wanted = _folded(name)
        exact = [one for one in self.everyone if wanted in (_name(one), one.user.casefold())]
        found = exact or [one for one in self.everyone if (_name(one) or "").startswith(f"{wanted} ")]
        if len(found) == 1:
            return found[0]
        if found:
            msg = f'Several are called "{name}": {_listed(found)}. Type the whole name in quotes.'
            raise BadArguments(msg)
        if name.startswith(("8:", "4:", "28:")):
            return Participant(UserId(name))
        msg = f'Nobody here is called "{name[:40]}". There are: {_listed(self.everyone)}.'
        raise BadArguments(msg)


def names_in(values: Values) -> Iterator[str]:
    """The names that stand for people still."""
    return (one.name for one in (*values.named.values(), *values.many) if isinstance(one, Somebody))


def _name(person: Participant) -> str | None:
    return _folded(person.display_name) if person.display_name else None


def _folded(name: str) -> str:
    return fold_name(name).removeprefix("@").strip()


def _listed(people: Sequence[Participant]) -> str:
    names = sorted(one.display_name for one in people if one.display_name)
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
