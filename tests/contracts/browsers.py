"""Pages with the official clients for browsers, in headless Chromium: packages, bundles, a server, screenshots.

The packages of `browser/package.json` are installed into a cache outside the clone (`CHATBOT_BROWSER_CACHE`, or the
user's cache directory), once for each state of that file. Screenshots are written beside them, into `screenshots`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn

from tests.contracts.clients import CACHE

SOURCES = Path(__file__).with_name("browser")
MANIFEST = json.loads((SOURCES / "package.json").read_text())
VERSIONS: dict[str, str] = MANIFEST["dependencies"]
SCREENSHOTS = CACHE / "screenshots"

_STEP_SECONDS = 30.0
"""How long a step in a page may take on a busy machine; nothing waits for it where all is well."""


def installed() -> Path:
    """The directory with the packages."""
    manifest = (SOURCES / "package.json").read_bytes()
    directory = CACHE / f"browser-{hashlib.sha256(manifest).hexdigest()[:12]}"
    if not (directory / "node_modules" / ".installed").exists():
        npm = shutil.which("npm")
        assert npm, "the clients are installed with npm, which is not here: install Node.js with npm"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_bytes(manifest)
        # The user interface asks for betas of packages that it is released with: npm would find no solution.
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", "--legacy-peer-deps"]
        subprocess.run([npm, "install", *options], cwd=directory, check=True, timeout=280)
        for package, script in MANIFEST["scripts of a page"].items():
            _unpack_script(npm, directory, package, script)
        (directory / "node_modules" / ".installed").touch()
    return directory


def _unpack_script(npm: str, directory: Path, package: str, script: str) -> None:
    """One file of a package: an installation would be half a gigabyte."""
    options = ["--silent", "--json", f"--pack-destination={directory}"]
    packed = subprocess.run([npm, "pack", package, *options], check=True, timeout=120, capture_output=True)
    archive = directory / str(json.loads(packed.stdout)[0]["filename"]).replace("@", "").replace("/", "-")
    with tarfile.open(archive) as content:
        member = content.extractfile(f"package/{script}")
        assert member is not None, f"{package} has no {script}"
        (directory / Path(script).name).write_bytes(member.read())
    archive.unlink()


def bundled(packages: Path, source: str, directory: Path) -> bytes:
    """A page's program with everything that it imports."""
    shutil.copy(SOURCES / source, packages / source)
    target = directory / f"{source}.bundle.js"
    esbuild = packages / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--format=iife", "--define:global=window", "--loader:.svg=dataurl", "--log-level=error"]
    command = [str(esbuild), source, *options, f"--outfile={target}"]
    subprocess.run(command, cwd=packages, check=True, timeout=120)
    return target.read_bytes()


class Page:
    """A page that runs in a browser (`tab`, of Playwright), and what it tells the test."""

    def __init__(self, scripts: Mapping[str, bytes]) -> None:
        self._scripts = scripts
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self.tab: Any = None
        self.errors: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the page, its scripts and the place where it tells what it has heard."""
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        answer, kind = b"", b"text/html; charset=utf-8"
        path = scope["path"].removeprefix("/")
        if path == "told":
            self._told.put_nowait(json.loads(body))
        elif path in self._scripts:
            answer, kind = self._scripts[path], b"text/javascript; charset=utf-8"
        elif not path:
            tags = "".join(f'<script src="/{name}"></script>' for name in self._scripts)
            style = "<style>html, body, #root { height: 100%; margin: 0 }</style>"
            answer = f'<!doctype html><title>A chat</title>{style}<div id="root"></div>{tags}'.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": answer})

    async def hears_all(self, *events: str) -> None:
        """The next events are these, in any order."""
        told = [(await self._next()) for _ in events]
        assert {one["event"] for one in told} == set(events), told

    async def hears(self, event: str) -> Any:
        """The payload of the next event, which must be this one."""
        told = await self._next()
        assert told["event"] == event, told
        return told.get("payload")

    async def _next(self) -> Any:
        async with asyncio.timeout(_STEP_SECONDS):
            return await self._told.get()

    async def shows(self, text: str, *, exact: bool = False) -> Any:
        """The first element that shows a text, once there is one."""
        found = self.tab.get_by_text(text, exact=exact).first
        await found.wait_for()
        return found

    async def hides(self, text: str) -> None:
        """Nothing shows this text any more."""
        await self.tab.get_by_text(text).first.wait_for(state="hidden")

    async def picture(self, name: str) -> None:
        """Keep how the page looks now, for people."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        await self.tab.screenshot(path=str(SCREENSHOTS / f"{name}.png"))


@dataclass(frozen=True)
class Visit:
    """What a page is given behind the `#` of its address."""

    endpoint: str
    token: str
    user: str
    thread: str = "-"


@contextlib.asynccontextmanager
async def opened(scripts: Mapping[str, bytes], visit: Visit) -> AsyncIterator[Page]:
    """A page in headless Chromium; the browser and the page's server end with the block."""
    from playwright.async_api import async_playwright  # installed for these tests alone

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the clients run in Chromium, which is not here: install Debian's package chromium"
    page = Page(scripts)
    async with _served(page) as address, async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            page.tab = await browser.new_page(ignore_https_errors=True)
            page.tab.set_default_timeout(_STEP_SECONDS * 1000)
            page.tab.on("pageerror", lambda error: page.errors.append(str(error)))
            # Not until the network is idle: a page that listens never is.
            await page.tab.goto(f"{address}/#{urlencode(vars(visit))}", wait_until="domcontentloaded")
            yield page
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def _served(page: Page) -> AsyncIterator[str]:
    config = uvicorn.Config(page, port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        await server.shutdown()
