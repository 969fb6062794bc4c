"""What the watchdog sees of an event loop that does not run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from chatbot.runtime import event_loop
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.runtime.watchdog import (
    BLOCKED_SECONDS,
    FACTS,
    RECORDED_SECONDS,
    STACK,
    STACK_SIGNAL,
    LoopWatchdog,
    last_known_place,
    place_of,
)

AUTHOR = """
import threading, json
def work(inside, go):
    json.loads("[1]", parse_int=lambda _text: (inside.set(), go.wait()))
"""


@contextmanager
def author_at_work(directory: Path) -> Iterator[FrameType]:
    """The innermost frame of a thread that waits deep inside the standard library, called by an author's code."""
    file = directory / "plugins" / "slow.py"
    file.parent.mkdir()
    file.write_text(AUTHOR)
    scope: dict[str, Callable[..., None]] = {}
    exec(compile(AUTHOR, str(file), "exec"), scope)
    inside, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=scope["work"], args=(inside, go))
    thread.start()
    inside.wait()
    assert thread.ident is not None
    try:
        yield sys._current_frames()[thread.ident]
    finally:
        go.set()
        thread.join()


def test_the_line_of_the_author_is_named_not_the_library_that_waits(tmp_path: Path) -> None:
    with author_at_work(tmp_path) as frame:
        place = place_of(frame, tmp_path)

    assert (place.file, place.line) == ("plugins/slow.py", 4)
    assert ".wait" in f"{place}" or place.call == "go.wait"


def test_where_no_author_is_involved_the_innermost_line_that_is_not_pythons_is_named() -> None:
    def here() -> FrameType:
        return sys._getframe()

    place = place_of(here(), Path("/nowhere"))

    assert (place.file, place.function) == (__file__, "here")


class Site:
    """A watchdog with a clock of its own."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.seen: list[Mapping[str, object]] = []
        self.control = ControlDirectory(directory)
        self.dog = LoopWatchdog(self.control, directory, on_check=self.seen.append, clock=lambda: self.now)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.control.write_facts("lobby", {})  # makes the directory
    return site


def test_a_blocked_loop_needs_a_restart_only_after_a_minute(site: Site) -> None:
    site.dog.heartbeat({})
    site.now = BLOCKED_SECONDS
    assert site.dog.problems == {}

    site.now = BLOCKED_SECONDS + 1
    assert "the event loop has been blocked for 61 s" in str(site.dog.problems["event loop"])

    site.dog.heartbeat({"echo": {"19:a": 400.0}})
    assert site.dog.problems == {"echo": {"19:a": 400.0}}


def test_a_blocked_loop_is_recorded_for_other_processes_until_it_runs_again(site: Site, tmp_path: Path) -> None:
    site.dog.heartbeat({})
    site.now = RECORDED_SECONDS
    site.dog.look()
    noted = last_known_place(site.control, tmp_path, may_signal=False)

    site.dog.heartbeat({})
    site.dog.look()

    assert noted is not None
    assert last_known_place(site.control, tmp_path, may_signal=False) is None
    assert site.seen == [{}, {}]


def test_without_a_watchdog_nothing_is_known(tmp_path: Path) -> None:
    assert last_known_place(ControlDirectory(tmp_path), tmp_path) is None


STUCK = """
import re, sys
from pathlib import Path
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.runtime.watchdog import LoopWatchdog
directory = Path(sys.argv[1])
control = ControlDirectory(directory)
control.write_facts("lobby", {})
with LoopWatchdog(control, directory).watching():
    print("watched", flush=True)
    re.match(r"(a+)+$", "a" * 40 + "b")
"""


def test_code_that_holds_the_gil_is_named_too(tmp_path: Path) -> None:
    program = tmp_path / "stuck.py"
    program.write_text(STUCK)
    process = subprocess.Popen([sys.executable, str(program), str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        place = None
        while place is None and process.poll() is None:
            place = last_known_place(ControlDirectory(tmp_path), tmp_path)
    finally:
        process.kill()
        process.communicate()

    assert place is not None
    assert place.startswith("stuck.py:")


@contextmanager
def answering(file: Path, text: str) -> Iterator[None]:
    """Have this process answer the signal with these stacks, as faulthandler does."""
    assert STACK_SIGNAL is not None
    before = signal.signal(STACK_SIGNAL, lambda *_: file.write_text(text))
    try:
        yield
    finally:
        signal.signal(STACK_SIGNAL, before)


def test_the_stack_of_a_loop_that_waits_for_something_to_do_is_no_place(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)
    control.write_facts(FACTS, {"pid": os.getpid(), "thread": 0x1F, "signal": STACK_SIGNAL, "place": None})
    file = control.path / STACK
    file.touch()
    text = (
        'Thread 0x000000000000001e (most recent call first):\n  File "/bots/plugins/other.py", line 1 in a\n\n'
        'Current thread 0x000000000000001f (most recent call first):\n  File "/lib/selectors.py", line 468 in select\n'
    )
    for idle in ("/lib/selectors.py", event_loop.__file__):  # asyncio, and uvloop, which has no frames of its own
        with answering(file, text.replace("/lib/selectors.py", idle)):
            assert last_known_place(control, tmp_path) is None

    with answering(file, text.replace("/lib/selectors.py", "/bots/plugins/p.py")):
        assert last_known_place(control, tmp_path) == "/bots/plugins/p.py:468 (select)"
    assert json.loads((control.path / "watchdog.json").read_text())["place"] is None
