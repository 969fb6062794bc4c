"""`.chat` files as pytest collects them: each is one test, which runs the conversation and shows differing replies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import ConfigError
from chatbot.testing.chat_files.difference import difference, first_difference, other_replies
from chatbot.testing.chat_files.script import Script, ScriptStep, parse_script


class ChatFile(pytest.File):
    """One file."""

    def collect(self) -> Iterable[ChatItem]:
        """Read the file; what cannot be understood is an error of collection, with file and line."""
        try:
            script = parse_script(self.path.read_text(encoding="utf-8"), self.nodeid)
        except ConfigError as error:
            raise self.CollectError(str(error)) from error
        except UnicodeDecodeError as error:
            msg = f"{self.nodeid}: this is not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
            raise self.CollectError(msg) from error
        yield ChatItem.from_parent(self, name="conversation", script=script)


class ChatItem(pytest.Item):
    """The conversation of a file, as a test."""

    def __init__(self, *, script: Script, **rest: Any) -> None:
        super().__init__(**rest)
        self._script = script

    def runtest(self) -> None:
        """Perform it in virtual time."""
        from chatbot.testing.chat_files.difference import (
            perform,  # here, because collecting need not load all of chatbot
        )

        done = perform(self._script, near=self.path.parent, root=self.config.rootpath)
        if self._script.has_loose_order:
            self._compare_replies(done.steps)
        elif lines := difference(self._script.steps, done.steps):
            place = f"{self._script.file}:{first_difference(self._script.steps, done.steps)}"
            head = f"{place}: the bots said something else (- expected, + happened)"
            raise UnexpectedReplies("\n".join([head, "", *lines]))

    def _compare_replies(self, done: Sequence[ScriptStep]) -> None:
        shown: list[str] = []
        for bot, lines in other_replies(self._script, done):
            shown += [f"{self._script.file}: {bot} said something else (- expected, + happened)", "", *lines]
        if shown:
            raise UnexpectedReplies("\n".join(shown))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what the author can mend, and a traceback only where a handler failed."""
        if isinstance(excinfo.value, UnexpectedReplies | ConfigError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is and what to call it."""
        return self.path, 0, self._script.file


class UnexpectedReplies(AssertionError):
    """The bots did not do what the file says."""
