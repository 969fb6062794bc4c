"""Collect `.chat` files with pytest: each is one test, which runs the conversation and shows differing replies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import ConfigError
from chatbot.testing.chat_files.difference import difference, first_difference, other_replies
from chatbot.testing.chat_files.script import Script, ScriptStep, parse_script


class ChatFile(pytest.File):
    """A `.chat` file."""

    def collect(self) -> Iterable[ChatItem]:
        """Parse the file; a syntax error is a collection error with file and line."""
        try:
            script = parse_script(self.path.read_text(encoding="utf-8"), self.nodeid)
        except ConfigError as error:
            raise self.CollectError(str(error)) from error
        except UnicodeDecodeError as error:
            msg = f"{self.nodeid}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
            raise self.CollectError(msg) from error
        yield ChatItem.from_parent(self, name="conversation", script=script)


class ChatItem(pytest.Item):
    """The test that runs the conversation of a file."""

    def __init__(self, *, script: Script, **rest: Any) -> None:
        super().__init__(**rest)
        self._script = script

    def runtest(self) -> None:
        """Run the conversation in virtual time."""
        from chatbot.testing.chat_files.difference import (
            perform,  # imported here, so that collection does not import all of chatbot
        )

        done = perform(self._script, near=self.path.parent, root=self.config.rootpath)
        if self._script.has_loose_order:
            self._compare_replies(done.steps)
        elif lines := difference(self._script.steps, done.steps):
            place = f"{self._script.file}:{first_difference(self._script.steps, done.steps)}"
            head = f"{place}: the bots replied differently (- expected, + actual)"
            raise UnexpectedReplies("\n".join([head, "", *lines]))

    def _compare_replies(self, done: Sequence[ScriptStep]) -> None:
        shown: list[str] = []
        for bot, lines in other_replies(self._script, done):
            shown += [f"{self._script.file}: {bot} replied differently (- expected, + actual)", "", *lines]
        if shown:
            raise UnexpectedReplies("\n".join(shown))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show differing replies as text; show a traceback only if a handler failed."""
        if isinstance(excinfo.value, UnexpectedReplies | ConfigError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return location and name of the test."""
        return self.path, 0, self._script.file


class UnexpectedReplies(AssertionError):
    """The bots' replies differ from the file."""
