import io
import signal
import sys
from functools import partial

import anyio
import pytest

from chatbot.runtime.signals import RELOAD_SIGNALS, STOP_SIGNALS, hangups, stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_and_every_further_one_insists(number: signal.Signals) -> None:
    asked, insisted = anyio.Event(), anyio.Event()
    seen: list[str] = []

    def first(name: str) -> None:
        seen.append(f"first {name}")
        asked.set()

    def second(name: str) -> None:
        seen.append(f"second {name}")
        insisted.set()

    with anyio.fail_after(5), stop_signals(first, second):
        signal.raise_signal(number)
        await asked.wait()
        signal.raise_signal(number)
        await insisted.wait()

    assert seen == [f"first {number.name}", f"second {number.name}"]


async def test_afterwards_signals_do_what_they_did_before() -> None:
    numbers = [*STOP_SIGNALS, *RELOAD_SIGNALS]
    before = [signal.getsignal(number) for number in numbers]

    with stop_signals(lambda _name: None, lambda _name: None), hangups(lambda _name: None, lambda _name: None):
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

    with anyio.fail_after(5), hangups(partial(note, "sent"), partial(note, "lost")):
        monkeypatch.setattr(Terminal, "is_there", not is_lost)
        signal.raise_signal(signal.SIGHUP)
        await came.wait()

    assert heard == [f"{expected} SIGHUP"]
