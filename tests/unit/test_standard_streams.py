"""Standard streams that code of plugins has closed or taken, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """\
import os, socket, sys
from chatbot.standard_streams import StandardStreams, occupy, open_socket

streams = StandardStreams()
log = streams.log_stream(sys.stderr)
stream = log.__enter__()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with pipes as its streams."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        input="typed\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


def test_closed_streams_are_put_back_as_they_were() -> None:
    done = run(
        "os.closerange(0, 3)\n"
        "changed = streams.restore()\n"
        "os.write(1, repr(changed).encode())\n"
        "os.write(2, os.read(0, 100))\n"
        "assert streams.restore() == []\n"
    )

    assert done.stdout == repr([f"{name}, which was closed" for name in ("stdin", "stdout", "stderr")])
    assert done.stderr == "typed\n"


def test_the_log_is_written_whatever_became_of_stderr() -> None:
    done = run(
        "os.closerange(0, 3)\n"
        "ends = [socket.socketpair() for _ in range(2)]\n"
        "print('a line', file=stream)\n"
        "ends[0][0].setblocking(False)\n"
        "try:\n    print(ends[1][1].recv(10, socket.MSG_DONTWAIT), file=stream)\n"
        "except BlockingIOError:\n    print('nothing', file=stream)\n"
    )

    assert done.stderr == "a line\nnothing\n"


def test_no_connection_of_ours_gets_the_number_of_a_stream() -> None:
    done = run(
        "os.closerange(0, 3)\n"
        "made = open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, '', ('127.0.0.1', 1)))\n"
        "null = os.stat(os.devnull)\n"
        "taken = [os.path.samestat(os.fstat(number), null) for number in range(3)]\n"
        "print(made.fileno() > 2, taken, file=stream)\n"
    )

    assert done.stderr == "True [True, True, True]\n"


@pytest.mark.parametrize("lets_go", [True, False])
def test_a_connection_that_took_the_number_of_a_stream_ends_before_the_stream_comes_back(lets_go: bool) -> None:
    done = run(
        "os.close(1)\n"
        "ours, other = socket.socketpair()\n"
        "assert ours.fileno() == 1\n"
        "print(streams.restore(), repr(ours.recv(10)), repr(other.recv(10)), file=stream)\n"
        f"ours.close() if {lets_go} else ours.detach()\n"
        "streams.restore()\n"
        "os.write(1, b'printed')\n"
    )

    assert done.stderr == "['stdout, whose number a connection had got'] b'' b''\n"
    assert done.stdout == "printed"


def test_a_stream_that_was_redirected_to_a_file_stays_so(tmp_path: Path) -> None:
    done = run(
        f"file = open({str(tmp_path / 'out')!r}, 'w')\n"
        "os.dup2(file.fileno(), 1)\n"
        "print(streams.restore(), file=stream)\n"
        "os.write(1, b'printed')\n"
    )

    assert done.stderr == "[]\n"
    assert (tmp_path / "out").read_text() == "printed"


def test_where_the_copies_are_closed_as_well_the_null_device_takes_the_numbers() -> None:
    run("os.closerange(0, 1000)\nchanged = streams.restore()\nassert len(changed) == 3\nassert occupy() == []\n")
