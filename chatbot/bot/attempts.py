"""How often the event in hand was tried, and what comes after a failure: another try, or a dead letter.

In an unbroken process the count is kept here. After a process that died in the middle of something, each lane notes
an attempt in the store *before* its handler runs, until one of its commits has succeeded: a handler that kills the
process ends as a dead letter too. Whatever was running when the process died again runs alone from then on, so that
only the guilty one is counted further; one that waits for its next try when the process is killed is not to blame.

A handler that runs for more than a minute is noted in any process. A process that was told to stop and is ended while
such a handler runs has *cut it off*, which is counted apart: restarting bots kills nobody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import anyio

from chatbot.events import Event
from chatbot.model import ThreadId
from chatbot.stores.base import Attempt, BeginAttempt, EndAttempt, Progress, Write

MAX_KILLS: Final = 3
"""How often a process may die while one handler runs."""

MAX_CUTS: Final = 5
"""How often a stop may cut off one handler that had run for more than a minute, or did not end when canceled."""


class TryAgain(Exception):
    """The handler of the event in hand failed and is to be tried again after a pause.

    Args:
        pause: seconds.
    """

    def __init__(self, pause: float) -> None:
        super().__init__(f"try again in {pause:g} s")
        self.pause = pause


class Attempts:
    """The attempts at the event in hand, of one lane.

    Args:
        thread: whose lane.
        noted: what an earlier process noted before it died.
        is_suspicious: the last process died, and nothing was committed here since.

    Attributes:
        handler: the handler, or error handler, that notes are about.
    """

    __slots__ = (
        "_event_key",
        "_failures",
        "_has_begun",
        "_not_before",
        "_noted",
        "_thread",
        "handler",
        "is_noted",
        "is_suspicious",
    )

    def __init__(self, thread: ThreadId, noted: Attempt | None, *, is_suspicious: bool) -> None:
        self._thread = thread
        self._noted = noted
        self._has_begun = False
        self.is_noted = False
        self._event_key = ""
        self.handler = ""
        self._failures = 0
        self._not_before = 0.0
        self.is_suspicious = is_suspicious or noted is not None

    def check_pause(self, event: Event) -> None:
        """Let nobody try before its time.

        Raises:
            TryAgain: it is too early.
        """
        now = anyio.current_time()
        if event.key == self._event_key and now < self._not_before:
            raise TryAgain(self._not_before - now)

    @property
    def pause_left(self) -> float:
        """Seconds until the event in hand may be tried again; 0 when it may be now, or none is."""
        return max(0.0, self._not_before - anyio.current_time())

    def kills(self, event: Event) -> int:
        """How often an earlier process has died in the handler of this event."""
        return self._of(event).count

    def cuts(self, event: Event) -> int:
        """How often an earlier process was stopped while the handler of this event had run for long."""
        return self._of(event).cuts

    def _of(self, event: Event) -> Attempt:
        return self._noted if self._noted and self._noted.event_key == event.key else Attempt(event.key, 0)

    def killer(self, event: Event) -> str:
        """The handler that ran when an earlier process died, or was stopped, over this event; "" if none is known."""
        return self._of(event).handler

    def begin(self, event: Event, handler: str) -> BeginAttempt:
        """What to write before a handler of a suspicious lane runs."""
        self.handler = handler
        return self._note(event, Progress.RUNNING)

    def long(self, event: Event) -> BeginAttempt:
        """What to write when the handler has run for more than a minute, or did not end when canceled."""
        return self._note(event, Progress.LONG)

    def _note(self, event: Event, progress: Progress) -> BeginAttempt:
        self._has_begun = self.is_noted = True
        return BeginAttempt(self._thread, replace(self._of(event), progress=progress, handler=self.handler))

    def survived(self, event: Event) -> Write:
        """What to write when a noted handler has failed but the process lives: this attempt was no kill."""
        self.is_noted = False
        known = self._of(event)
        return BeginAttempt(self._thread, known) if known.count or known.cuts else EndAttempt(self._thread)

    def number(self, event: Event) -> int:
        """Which attempt at this event the next one is, from 1."""
        return self.kills(event) + (self._failures if event.key == self._event_key else 0) + 1

    def failed(self, event: Event) -> int:
        """Count a failure; returns which one it was, from 1."""
        if event.key != self._event_key:
            self._event_key, self._failures = event.key, 0
        self._failures += 1
        return self._failures

    def wait(self, pause: float) -> TryAgain:
        """What to raise so that the event is tried again after this pause."""
        self._not_before = anyio.current_time() + pause
        return TryAgain(pause)

    def end(self) -> list[Write]:
        """What to write in the commit that ends the attempt."""
        return [EndAttempt(self._thread)] if self._has_begun or self._noted else []

    def committed(self) -> None:
        """That commit has succeeded: nothing here is suspicious any more."""
        self._event_key, self._failures, self._not_before = "", 0, 0.0
        self._noted, self._has_begun, self.is_noted, self.is_suspicious = None, False, False, False
