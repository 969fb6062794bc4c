import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot.runtime.systemd import SystemdNotifier


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a supervisor, as systemd has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


def environ(ear: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": ear.getsockname(), **more}


def test_ready_and_stopping_are_each_one_datagram(ear: socket.socket) -> None:
    supervisor = SystemdNotifier.of(environ(ear))

    supervisor.ready("Running 2 bots")
    supervisor.stopping()

    assert ear.recv(1000).splitlines() == [b"READY=1", b"STATUS=Running 2 bots"]
    assert ear.recv(1000).splitlines()[0] == b"STOPPING=1"


def test_a_reload_is_announced_in_one_datagram_with_the_time_and_ends_with_ready(ear: socket.socket) -> None:
    supervisor = SystemdNotifier.of(environ(ear))
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    supervisor.reloading()
    supervisor.ready("Running 2 bots")

    first, second, _status = ear.recv(1000).decode().splitlines()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert ear.recv(1000).startswith(b"READY=1\n")


def test_a_reload_is_not_announced_once_stopping_has_begun(ear: socket.socket) -> None:
    supervisor = SystemdNotifier.of(environ(ear))

    supervisor.stopping()
    supervisor.reloading()
    supervisor.ready("Running 2 bots")

    assert ear.recv(1000).startswith(b"STOPPING=1")
    ear.setblocking(False)
    with pytest.raises(BlockingIOError):
        ear.recv(1000)


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0chatbot-test-{os.getpid()}")
        listening.settimeout(60)

        SystemdNotifier.of({"NOTIFY_SOCKET": f"@chatbot-test-{os.getpid()}"}).stopping()

        assert listening.recv(1000).startswith(b"STOPPING=1")


def test_a_sign_of_life_is_given_three_times_within_the_limit_however_often_it_could_be(ear: socket.socket) -> None:
    supervisor = SystemdNotifier.of(environ(ear, WATCHDOG_USEC="3600000000", WATCHDOG_PID=str(os.getpid())))

    supervisor.alive({})
    supervisor.alive({})
    supervisor.stopping()

    assert ear.recv(1000) == b"WATCHDOG=1"
    assert ear.recv(1000).startswith(b"STOPPING=1")


def test_none_is_given_while_something_is_wrong_that_a_restart_helps_with(ear: socket.socket) -> None:
    supervisor = SystemdNotifier.of(environ(ear, WATCHDOG_USEC="3"))

    supervisor.alive({"echo": {"19:a": 400.0}})

    ear.setblocking(False)
    with pytest.raises(BlockingIOError):
        ear.recv(1000)


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "3000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}])
def test_a_watchdog_of_another_process_is_not_notified(ear: socket.socket, watchdog: dict[str, str]) -> None:
    SystemdNotifier.of(environ(ear, **watchdog)).alive({})

    ear.setblocking(False)
    with pytest.raises(BlockingIOError):
        ear.recv(1000)


def test_without_a_supervisor_nothing_is_sent_and_nothing_fails() -> None:
    supervisor = SystemdNotifier.of({})

    supervisor.ready("Running")
    supervisor.stopping()


def test_a_supervisor_that_is_gone_does_not_end_the_bots(tmp_path: Path) -> None:
    SystemdNotifier.of({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).stopping()
