"""The official clients for browsers, in headless Chromium, against a served emulator.

They need Chromium (Debian's package chromium), Node.js and npm. The packages of `browser/package.json` are installed
into a cache outside the clone (`CHATBOT_BROWSER_CACHE`, or the user's cache directory) and bundled from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import platformdirs
import pytest
import uvicorn

from chatbot.emulator import Emulator, Running, serve

SOURCES = Path(__file__).with_name("browser")
# Read here: tests have a home of their own.
CACHE = Path(os.environ.get("CHATBOT_BROWSER_CACHE") or platformdirs.user_cache_path("chatbot-tests"))

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def packages() -> Path:
    """The directory with the packages, installed once for each state of `package.json`."""
    manifest = (SOURCES / "package.json").read_bytes()
    directory = CACHE / f"browser-{hashlib.sha256(manifest).hexdigest()[:12]}"
    if not (directory / "node_modules" / ".installed").exists():
        npm = shutil.which("npm")
        assert npm, "the clients are installed with npm, which is not here: install Node.js with npm"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_bytes(manifest)
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([npm, "install", *options], cwd=directory, check=True, timeout=280)
        (directory / "node_modules" / ".installed").touch()
    return directory


def bundled(packages: Path, source: str, directory: Path) -> bytes:
    """A page's program with everything that it imports."""
    shutil.copy(SOURCES / source, packages / source)
    target = directory / "bundle.js"
    esbuild = packages / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--format=iife", "--define:global=window", "--log-level=error", f"--outfile={target}"]
    subprocess.run([str(esbuild), source, *options], cwd=packages, check=True, timeout=120)
    return target.read_bytes()


class Page:
    """A page that runs in a browser, and what it tells."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._told: asyncio.Queue[Any] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        answer, kind = b"", b"text/html; charset=utf-8"
        if scope["path"] == "/told":
            self._told.put_nowait(json.loads(body))
        elif scope["path"] == "/bundle.js":
            answer, kind = self._program, b"text/javascript; charset=utf-8"
        elif scope["path"] == "/":
            answer = b'<!doctype html><title>t</title><div id="root"></div><script src="/bundle.js"></script>'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": answer})

    async def hears_all(self, *events: str) -> None:
        """The next events are these, in any order."""
        told = [(await self._told.get()) for _ in events]
        assert {one["event"] for one in told} == set(events), told

    async def hears(self, event: str) -> Any:
        """The payload of the next event, which must be this one."""
        told = await self._told.get()
        assert told["event"] == event, told
        return told.get("payload")


@contextlib.asynccontextmanager
async def opened(program: bytes, given: dict[str, str], profile: Path) -> AsyncIterator[Page]:
    """A page in headless Chromium, with what it is given behind the `#` of its address."""
    page = Page(program)
    config = uvicorn.Config(page, port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the clients run in Chromium, which is not here: install Debian's package chromium"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--ignore-certificate-errors", "--disable-background-networking", f"--user-data-dir={profile}"]
    url = f"http://127.0.0.1:{port}/#{urlencode(given)}"
    command = [chromium, *options, url]
    try:
        async with await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                yield page
            finally:
                browser.terminate()
                await browser.wait()
    finally:
        await server.shutdown()


@contextlib.asynccontextmanager
async def listening(packages: Path, running: Running, ann: str, directory: Path) -> AsyncIterator[Page]:
    program = await anyio.to_thread.run_sync(bundled, packages, "realtime.mjs", directory)
    given = {"endpoint": running.endpoint, "token": running.emulator.issue_token(ann).text, "bob": "-"}
    async with opened(program, given, directory / "profile") as page:
        await page.hears_all("connected", "listening")
        yield page


async def test_the_javascript_sdk_hears_of_everything_that_happens_in_a_thread(packages: Path, tmp_path: Path) -> None:
    emulator = Emulator(quotas=False)
    ann, bob, eve = (emulator.create_user() for _ in range(3))
    async with serve(emulator, certificates=tmp_path) as running, listening(packages, running, ann, tmp_path) as page:
        thread = emulator.create_thread(bob, "100% Café", [ann], names={ann: "Ann", bob: "Bob"}, metadata={"a": "1"})
        created = await page.hears("chatThreadCreated")
        number = emulator.send(thread, bob, "<b>hi</b>", type="html", display_name="Bob", metadata={"k": "v"})
        received = await page.hears("chatMessageReceived")
        emulator.edit(thread, bob, number, "better")
        edited = await page.hears("chatMessageEdited")
        emulator.type(thread, bob, "Bob")
        typing = await page.hears("typingIndicatorReceived")
        emulator.read(thread, bob, number)
        read = await page.hears("readReceiptReceived")
        emulator.set_topic(thread, bob, "Hall")
        updated = await page.hears("chatThreadPropertiesUpdated")
        emulator.add(thread, bob, eve, display_name="Eve ü %41")
        added = await page.hears("participantsAdded")
        emulator.remove(thread, bob, eve)
        removed = await page.hears("participantsRemoved")
        emulator.delete(thread, bob, number)
        deleted = await page.hears("chatMessageDeleted")
        own = emulator.send(thread, ann, "mine")
        heard_own = await page.hears("chatMessageReceived")
        emulator.delete_thread(thread, bob)
        ended = await page.hears("chatThreadDeleted")

    assert created["threadId"] == thread
    assert created["properties"] == {"topic": "100% Café", "metadata": {"a": "1"}}
    assert [one["displayName"] for one in created["participants"]] == ["Bob", "Ann"]
    assert (received["id"], received["message"], received["metadata"]) == (str(number), "<b>hi</b>", {"k": "v"})
    assert received["sender"]["communicationUserId"] == bob
    assert received["recipient"]["communicationUserId"] == ann
    assert (edited["message"], edited["id"]) == ("better", str(number))
    assert (typing["senderDisplayName"], typing["threadId"]) == ("Bob", thread)
    assert (read["chatMessageId"], read["threadId"]) == (str(number), thread)
    assert updated["properties"]["topic"] == "Hall"
    assert [one["displayName"] for one in added["participantsAdded"]] == ["Eve ü %41"]
    assert [one["id"]["communicationUserId"] for one in removed["participantsRemoved"]] == [eve]
    assert deleted["id"] == str(number)
    assert heard_own["id"] == str(own)
    assert ended["threadId"] == thread


async def test_a_page_that_lost_its_connection_comes_back_and_hears_again(packages: Path, tmp_path: Path) -> None:
    emulator = Emulator(quotas=False)
    ann, bob = emulator.create_user(), emulator.create_user()
    thread = emulator.create_thread(bob, "Lobby", [ann])
    async with serve(emulator, certificates=tmp_path) as running, listening(packages, running, ann, tmp_path) as page:
        emulator.realtime.drop(ann)
        await page.hears_all("disconnected", "connected")
        number = emulator.send(thread, bob, "are you back?")
        received = await page.hears("chatMessageReceived")

    assert received["id"] == str(number)
