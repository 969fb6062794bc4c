import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from chatbot.runtime.logs import logging_to, resolve_format
from chatbot.runtime.observe.log_context import CURRENT_WORK, LogContext


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(write: Callable[[], object], **options: Any) -> list[str]:
    stream = io.StringIO()
    with logging_to(stream, **options):
        write()
    return stream.getvalue().splitlines()


def objects(write: Callable[[], object], **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(write, format="json", **options)]


def test_auto_is_console_on_a_terminal_and_json_otherwise() -> None:
    assert resolve_format("auto", Terminal()) == "console"
    assert resolve_format("auto", io.StringIO()) == "json"
    assert resolve_format("json", Terminal()) == "json"


def test_an_event_is_one_json_object_with_its_values() -> None:
    (line,) = objects(lambda: structlog.get_logger().info("bot.started", bot="echo", user_id="8:acs:1"))

    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "event": "bot.started", "bot": "echo", "user_id": "8:acs:1"}


def test_every_log_line_of_any_library_is_a_json_object() -> None:
    def everyone() -> None:
        structlog.get_logger().info("ours.said", text="two\nlines\x1b[0m")
        logging.getLogger("some.library").error("theirs: %s\nsecond", "x")
        warnings.warn("careful", UserWarning, stacklevel=1)
        logging.getLogger("some.library").info("%d", "not a number")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("uncaught"), None)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        found = objects(everyone)

    assert [(line["level"], line["event"].split(":")[0]) for line in found] == [
        ("info", "ours.said"),
        ("error", "theirs"),
        ("warning", __file__),
        ("error", "log.failed"),
        ("error", "thread.crashed"),
        ("error", "process.crashed"),
    ]
    assert "ZeroDivisionError" in found[4]["exception"]


def test_the_level_holds_for_our_events_and_for_libraries() -> None:
    def talk() -> None:
        structlog.get_logger().info("ours.said")
        logging.getLogger("some.library").info("theirs")
        structlog.get_logger().warning("ours.warned")

    assert [line["event"] for line in objects(talk, level="warning")] == ["ours.warned"]


def test_libraries_that_log_every_request_are_logged_from_warning_on() -> None:
    def talk() -> None:
        for name in ("azure.core.pipeline.policies.http_logging_policy", "asyncio", "uvicorn.error"):
            logging.getLogger(name).info("chatter")
            logging.getLogger(name).warning("trouble")

    assert [line["event"] for line in objects(talk, level="debug")] == ["trouble"] * 3


def test_nothing_in_an_event_can_reach_into_the_readers_terminal() -> None:
    hostile = "\x1b]0;title\x07\u202e\nforged line"

    def talk() -> None:
        log = structlog.get_logger()
        log.info("name.seen", name=hostile, names={"a": [hostile]}, short="\x1b", error=ValueError(hostile))
        logging.getLogger("some.library").warning(hostile)
        log.error("handler.failed", exc_info=ValueError(hostile))

    found = lines(talk, format="console")

    assert all(line.isprintable() for line in found)
    assert not any(line.startswith("forged") for line in found[:2])


def test_a_traceback_does_not_show_the_values_of_variables() -> None:
    def fail() -> None:
        secret = "hunter2"  # noqa: F841
        try:
            raise KeyError
        except KeyError:
            structlog.get_logger().exception("handler.failed")

    assert "hunter2" not in "".join(lines(fail, format="json"))
    assert "hunter2" not in "".join(lines(fail, format="console"))


def test_what_was_configured_before_comes_back() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, logging.getLogger("azure").level)

    with logging_to(io.StringIO()):
        assert root.handlers != before[0]

    assert (root.handlers[:], root.level, sys.excepthook, logging.getLogger("azure").level) == before
    assert not structlog.is_configured()


def test_a_disconnected_reader_does_no_harm() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with logging_to(Gone(), format="json"):
        structlog.get_logger().info("anyone.there")


@pytest.fixture(autouse=True)
def _unconfigured() -> None:
    structlog.reset_defaults()


def test_format_and_level_can_change_while_loggers_are_in_use() -> None:
    stream = io.StringIO()
    with logging_to(stream, format="json", level="info") as ours:
        bound = structlog.get_logger().bind(bot="echo")
        bound.debug("not yet")
        bound.info("bot.first")
        ours.change(format="console", level="debug")
        bound.debug("bot.second")
        logging.getLogger("azure").info("too much")
        ours.change(format="json", level="error")
        bound.info("no more")
        bound.error("bot.third")

    first, second, third = stream.getvalue().splitlines()
    assert json.loads(first)["timestamp"].endswith("Z")
    assert "bot.second" in second
    assert not second.startswith("{")
    assert json.loads(third)["event"] == "bot.third"


def test_a_bot_has_a_level_of_its_own_and_so_have_libraries_that_work_for_it() -> None:
    def everyone() -> None:
        for bot in ("loud", "quiet", "other"):
            for level in ("debug", "info", "error"):
                getattr(structlog.get_logger(), level)("event.said", bot=bot)
        logging.getLogger("some.library").debug("nobody's")
        structlog.get_logger().info("daemon.said")
        token = CURRENT_WORK.set(LogContext(bot="loud"))
        logging.getLogger("some.library").debug("of the loud one")
        CURRENT_WORK.reset(token)

    found = objects(everyone, level="info", bots={"loud": "debug", "quiet": "error"})

    assert [(line.get("bot"), line["level"]) for line in found] == [
        ("loud", "debug"),
        ("loud", "info"),
        ("loud", "error"),
        ("quiet", "error"),
        ("other", "info"),
        ("other", "error"),
        (None, "info"),
        ("loud", "debug"),
    ]


def test_lines_in_the_journal_begin_with_their_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal"
    with file.open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        with logging_to(stream, format="console", level="debug"):
            for level in ("debug", "info", "warning", "error"):
                getattr(structlog.get_logger(), level)("event.said")
            try:
                raise OSError(1, "x")
            except OSError:
                structlog.get_logger().exception("event.failed")
    written = file.read_text().splitlines()

    assert [line[:3] for line in written[:4]] == ["<7>", "<6>", "<4>", "<3>"]
    assert {line[:3] for line in written[4:]} == {"<3>"}
    assert len(written) > 6
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert not lines(lambda: structlog.get_logger().info("event.said"), format="console")[0].startswith("<")
