"""The bots of a process, as one of them sees them: the others, also those that come later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from chatbot.model import UserId


class Siblings(Set[UserId]):
    """All bots of a process but one, as they are at any time.

    Args:
        oneself: the one.
        users: of all bots; whoever changes it changes what is in here.
    """

    def __init__(self, oneself: UserId, users: Set[UserId]) -> None:
        self._oneself = oneself
        self._users = users

    def __contains__(self, user: object) -> bool:
        return user != self._oneself and user in self._users

    def __iter__(self) -> Iterator[UserId]:
        return (user for user in self._users if user != self._oneself)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @classmethod
    def _from_iterable(cls, it: Iterable[UserId]) -> Set[UserId]:  # type: ignore[override]
        return frozenset(it)
