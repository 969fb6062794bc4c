"""What a person sees: the official JavaScript SDK in a process of its own, which lists the messages of threads.

It lists them as often as it can, so that the quotas are off; the bot keeps its own budgets all the same. It needs
Node.js with npm, and its packages are installed once into the cache of the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.frame import Frame, Row
from tests.benchmarks.stack import running
from tests.contracts.clients import CHAT, javascript_sdk, javascript_sdk_at

THREADS = 3
SECONDS, QUICK_SECONDS = 45.0, 5.0
PAUSE = (4.0, 6.0)
VERSIONS = ("1.6.0", "1.3.1")
"""Of the chat SDK, and of the identity SDK that is installed beside it."""

NAME = f"{THREADS} threads on loopback, for {CHAT} {VERSIONS[0]}, quotas off"
PROGRAM = Path(__file__).with_name("watching.mjs")


def rows(frame: Frame, plugin: str) -> list[Row]:
    """Measure, if it is installed here or can be."""
    what = f"{NAME}: talking, reply seen, median"
    is_here = (javascript_sdk_at(*VERSIONS) / ".installed").exists()
    if missing := _missing(frame, is_here=is_here):
        return [Row(what, None, "s", note=f"not measured: {missing}")]
    frame.say("a JavaScript client watches")
    seconds = QUICK_SECONDS if frame.quick else SECONDS
    with tempfile.TemporaryDirectory(dir=frame.workdir) as certificates:
        stage = ("tests.benchmarks.conversing", "1", certificates)
        with running(frame.workdir / "javascript", THREADS, stage=stage, plugin=plugin) as stack:
            client = _begin(stack.facts)
            try:
                time.sleep(2.0)  # it lists what is there already
                said = stack.tell("converse", seconds=seconds, pause=PAUSE, talking=THREADS, silent=0)["talking"]
            finally:
                output = _end(client)
    seen = {(line["thread"], line["id"]): line["at"] for line in map(json.loads, output.splitlines())}
    replied = [(word, reply, seen.get((thread, reply))) for thread, word, reply in said if reply is not None]
    by_client = [(at - word) / 1000 for word, _, at in replied if at is not None]
    by_ids = [(reply - word) / 1000 for word, reply, at in replied if at is not None]
    if not by_client:
        return [Row(what, None, "s", note="not measured: the client has seen no reply")]
    return [
        Row(
            what, statistics.median(by_client), "s", "by the service's milliseconds", statistics.median(by_ids),
            note=f"{len(by_client)} of {len(said)}; it lists a thread's messages about every 30 ms",
        )
    ]  # fmt: skip


def _missing(frame: Frame, *, is_here: bool) -> str:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node.js and npm are not here"
    return "a quick run installs nothing" if frame.quick and not is_here else ""


def _begin(facts: dict[str, Any]) -> subprocess.Popen[str]:
    packages = javascript_sdk(*VERSIONS)
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": facts["ca_file"], "NODE_NO_WARNINGS": "1"}
    command = ["node", str(PROGRAM), facts["endpoint"], facts["token"], *facts["threads"]]
    return subprocess.Popen(
        command, cwd=packages, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _end(client: subprocess.Popen[str]) -> str:
    try:
        output, _ = client.communicate(timeout=10.0)  # which closes its standard input
    except subprocess.TimeoutExpired:
        client.kill()
        output, _ = client.communicate()
    return output
