"""The page "How a message becomes a reply" against one message that is followed with the profiler."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from tests.places import DOCS, ROOT, exists, places_in

PAGE: Final = DOCS / "concepts" / "message.md"
MORE_FILES: Final = "## Other modules on the way"


@pytest.fixture(scope="module")
def way() -> list[tuple[str, str]]:
    """File and function of every hop of one message, in the order of their first calls."""
    command = [sys.executable, "-m", "tests.message_path"]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT.parent, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(file, name) for file, _, name in (line.partition(" ") for line in done.stdout.splitlines())]


def test_a_message_takes_the_hops_of_the_page_in_their_order(way: list[tuple[str, str]]) -> None:
    hops = [place for place in places_in(PAGE.read_text("utf-8").split(MORE_FILES)[0]) if place[1]]

    assert len(hops) >= 20
    assert [f"{file}:{name}" for file, name in hops if (file, name) not in way] == []
    # People are clients of the service, too: they call it before the bot does.
    own = [hop for hop in hops if not hop[0].startswith("service/")]
    assert own == sorted(own, key=way.index)


def test_the_page_names_every_module_that_a_message_passes(way: list[tuple[str, str]]) -> None:
    passed = {file for file, _name in way}
    named = {file for file, _name in places_in(PAGE.read_text("utf-8"))}

    assert sorted(passed - named) == [], "add these to the page"
    assert sorted(named - passed) == [], "remove these from the page"


def test_every_place_on_the_page_exists() -> None:
    places = places_in(PAGE.read_text("utf-8"))

    assert [place for place in places if not exists(*place)] == []
