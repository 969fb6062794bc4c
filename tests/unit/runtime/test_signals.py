import signal

import anyio
import pytest

from chatbot.runtime.signals import STOP_SIGNALS, stop_signals


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
    before = [signal.getsignal(number) for number in STOP_SIGNALS]

    with stop_signals(lambda _name: None, lambda _name: None):
        assert signal.getsignal(signal.SIGTERM) != before[-1]

    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
