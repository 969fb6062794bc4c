import io
import signal
import sys
from collections.abc import Iterator
from functools import partial

import anyio
import pytest

from chatbot.runtime.forced_exit import ForcedExit
from chatbot.runtime.signals import RELOAD_SIGNALS, STOP_SIGNALS, hangups


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signals do afterwards what they did before, also when the process was asked to end."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_stop_signal_counts_and_its_immediate_repetition_does_not(number: signal.Signals) -> None:
    heard: list[str] = []
    came = anyio.Event()

    def first(name: str) -> None:
        heard.append(f"first {name}")
        came.set()

    with anyio.fail_after(60), ForcedExit() as forced_exit:
        forced_exit.drain_seconds = lambda: 3600.0
        with forced_exit.listening(first, lambda name: heard.append(f"second {name}")):
            signal.raise_signal(number)
            signal.raise_signal(number)
            await came.wait()

    assert heard == [f"first {number.name}"]
    assert signal.getsignal(number) == signal.SIG_IGN  # the process is about to end, with the exit code it has


async def test_afterwards_signals_do_what_they_did_before() -> None:
    numbers = [*STOP_SIGNALS, *RELOAD_SIGNALS]
    before = [signal.getsignal(number) for number in numbers]

    with ForcedExit(), hangups(lambda _name: None, lambda _name: None):
        assert all(signal.getsignal(number) != handler for number, handler in zip(numbers, before, strict=True))

    assert [signal.getsignal(number) for number in numbers] == before


class Terminal(io.StringIO):
    """A stream on a terminal, which may go."""

    is_there = True

    def isatty(self) -> bool:
        return self.is_there


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize(
    ("kind", "is_lost", "expected"),
    [(io.StringIO, False, "sent"), (Terminal, False, "sent"), (Terminal, True, "lost")],
)
async def test_a_hangup_was_sent_or_means_that_the_terminal_is_gone(
    stream: str, kind: type[io.StringIO], is_lost: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    came = anyio.Event()
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, kind() if name == stream else io.StringIO())

    def note(meaning: str, name: str) -> None:
        heard.append(f"{meaning} {name}")
        came.set()

    with anyio.fail_after(60), hangups(partial(note, "sent"), partial(note, "lost")):
        monkeypatch.setattr(Terminal, "is_there", not is_lost)
        signal.raise_signal(signal.SIGHUP)
        await came.wait()

    assert heard == [f"{expected} SIGHUP"]
