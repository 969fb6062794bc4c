"""The official clients for browsers, as they are, in headless Chromium against a served emulator.

They need Chromium (Debian's package chromium), Node.js, npm and Playwright; see `browsers.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.emulator import Emulator, Running, serve
from tests.contracts.browsers import MANIFEST, SOURCES, VERSIONS, Page, Visit, bundled, installed, opened
from tests.contracts.clients import ran

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVQYV2P4DwABAQEAWk1v8QAAAABJRU5ErkJggg==")


@pytest.fixture(scope="session")
def packages() -> Path:
    """The directory with the packages."""
    return installed()


CHROMIUM = "headless Chromium"
SDK = "`@azure/communication-chat`"


class Stage:
    """An emulator with Ann, who sits at the browser, Bob and Eve."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.emulator = running.emulator
        self.ann, self.bob, self.eve = (self.emulator.create_user() for _ in range(3))

    def visit(self, thread: str = "-") -> Visit:
        return Visit(self.running.endpoint, self.emulator.issue_token(self.ann).text, self.ann, thread)

    def lobby(self) -> str:
        """A thread of Bob and Ann."""
        return self.emulator.create_thread(self.bob, "Lobby", [self.ann], names={self.ann: "Ann", self.bob: "Bob"})

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what the page does; the test's own timeout ends it."""
        while not condition():  # noqa: ASYNC110 -- the emulator has no event for it
            await asyncio.sleep(0.01)

    def texts(self, thread: str, user: str) -> list[str]:
        return [text for sender, text in self.emulator.texts(thread) if sender == user]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve(Emulator(), certificates=tmp_path) as running:
        yield Stage(running)


async def program(packages: Path, source: str, directory: Path) -> dict[str, bytes]:
    return {"bundle.js": await anyio.to_thread.run_sync(bundled, packages, source, directory)}


@contextlib.asynccontextmanager
async def listening(packages: Path, stage: Stage, directory: Path) -> AsyncIterator[Page]:
    async with opened(await program(packages, "realtime.mjs", directory), stage.visit()) as page:
        await page.hears_all("connected", "listening")
        yield page


async def test_the_javascript_sdk_is_notified_of_everything_that_happens_in_a_thread(
    packages: Path, stage: Stage, tmp_path: Path
) -> None:
    emulator, ann, bob, eve = stage.emulator, stage.ann, stage.bob, stage.eve
    async with listening(packages, stage, tmp_path) as page:
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
        image = emulator.upload_image(thread, bob, PNG, "cat.png")
        emulator.send(thread, bob, f'<img id="{image}">', type="html", images=[image])
        with_image = await page.hears("chatMessageReceived")
        emulator.delete_thread(thread, bob)
        ended = await page.hears("chatThreadDeleted")
        await page.picture("chat-sdk-events")

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
    assert with_image["attachments"][0]["name"] == "cat.png"
    assert with_image["attachments"][0]["url"].startswith(f"{stage.running.endpoint}/chat/threads/")
    assert ended["threadId"] == thread
    ran(SDK, VERSIONS["@azure/communication-chat"], CHROMIUM, "every event of a thread")


async def test_a_page_reconnects_and_is_notified_again(packages: Path, stage: Stage, tmp_path: Path) -> None:
    thread = stage.lobby()
    async with listening(packages, stage, tmp_path) as page:
        stage.emulator.realtime.drop(stage.ann)
        await page.hears_all("disconnected", "connected")
        number = stage.emulator.send(thread, stage.bob, "are you back?")
        received = await page.hears("chatMessageReceived")

    assert received["id"] == str(number)
    ran(SDK, VERSIONS["@azure/communication-chat"], CHROMIUM, "a lost connection")


async def test_the_javascript_sdk_does_in_a_browser_everything_that_a_chat_has(
    packages: Path, stage: Stage, tmp_path: Path
) -> None:
    async with opened(await program(packages, "chat_client.mjs", tmp_path), stage.visit()) as page:
        said = await page.tab.evaluate("([bob, eve]) => window.talk(bob, eve)", [stage.bob, stage.eve])
        await page.picture("chat-sdk-operations")
        shown = await page.tab.evaluate("([thread, bytes]) => window.show(thread, bytes)", [said["thread"], list(PNG)])
        await page.picture("chat-sdk-image")

    thread = said["thread"]
    assert stage.emulator.texts(thread)[0] == (stage.ann, "hello again")
    assert (said["message"]["content"]["message"], said["message"]["metadata"]) == ("hello again", {"k": "v"})
    assert [one["type"] for one in said["messages"]] == ["html", "text", "topicUpdated", "participantAdded"]
    assert [one["senderDisplayName"] for one in said["messages"][1:2]] == ["Ann"]
    assert "deletedOn" in said["messages"][0]
    assert len(said["receipts"]) == 1
    assert len(stage.emulator.typing(thread)) == 1
    assert [one["displayName"] for one in said["participants"]] == ["Ann", "Bob", "Eve"]
    assert [member.user for member in stage.emulator.participants(thread)] == [stage.ann, stage.bob]
    assert (said["properties"]["topic"], said["properties"]["metadata"]) == ("Hall", {"from": "browser"})
    assert said["properties"]["retentionPolicy"] == {"kind": "threadCreationDate", "deleteThreadAfterDays": 40}
    assert [one["id"] for one in said["threads"]] == [thread]
    assert said["gone"] == 404
    attachment = shown["message"]["content"]["attachments"][0]
    assert (attachment["id"], attachment["name"], shown["width"], shown["type"]) == (
        shown["image"]["id"],
        "cat.png",
        1,
        "image/png",
    )
    assert not page.errors
    ran(SDK, VERSIONS["@azure/communication-chat"], CHROMIUM, "every operation of a chat")
    ran(SDK, VERSIONS["@azure/communication-chat-preview"].rpartition("@")[2], CHROMIUM, "images and attachments")


async def test_microsofts_chat_composite_works_as_it_is(packages: Path, stage: Stage, tmp_path: Path) -> None:
    emulator, ann, bob, thread = stage.emulator, stage.ann, stage.bob, stage.lobby()
    emulator.send(thread, bob, "an old message", display_name="Bob")
    emulator.send(thread, bob, "an old <b>bold</b> one", type="html", display_name="Bob")
    gone = emulator.send(thread, bob, "a deleted one", display_name="Bob")
    emulator.delete(thread, bob, gone)
    async with opened(await program(packages, "composite.mjs", tmp_path), stage.visit(thread)) as page:
        await page.hears("rendered")
        # History and participants
        await _bubble(page, "an old message").wait_for()
        await _bubble(page, "an old bold one").locator("b").wait_for()
        await page.shows("Bob, Ann joined the chat.")
        assert await _bubble(page, "a deleted one").count() == 0
        assert sorted(await page.tab.evaluate("window.participants()")) == ["Ann", "Bob"]
        # A pushed message
        await stage.until(lambda: emulator.realtime.connections)
        begun = time.monotonic()
        pushed = emulator.send(thread, bob, "a pushed message", display_name="Bob")
        await _bubble(page, "a pushed message").wait_for()
        seconds = time.monotonic() - begun
        # Receipts: the page reads what it shows
        await stage.until(lambda: ann in emulator.receipts(thread) and emulator.receipts(thread)[ann].message >= pushed)
        # Typing and sending
        box = page.tab.get_by_placeholder("Enter a message")
        await box.press_sequentially("from Ann")
        await stage.until(lambda: emulator.typing(thread))
        await box.press("Enter")
        await stage.until(lambda: stage.texts(thread, ann) == ["from Ann"])
        await _bubble(page, "from Ann").wait_for()
        # Bob reads and types
        emulator.read(thread, bob, emulator.transcript(thread)[-1].id)
        await page.tab.locator('[data-ui-status="seen"]').first.wait_for()
        emulator.type(thread, bob, "Bob")
        await page.tab.get_by_label("Bob is typing").wait_for()
        await page.picture("composite-conversation")
        # Edit and delete, by the page and by Bob
        await _choose(page, "from Ann", "Edit")
        editor = page.tab.get_by_placeholder("Edit your message")
        await editor.fill("from Ann, improved")
        await editor.press("Enter")
        await stage.until(lambda: stage.texts(thread, ann) == ["from Ann, improved"])
        await _bubble(page, "from Ann, improved").wait_for()
        emulator.edit(thread, bob, pushed, "a better message")
        await _bubble(page, "a better message").wait_for()
        await page.picture("composite-edited")
        await _choose(page, "from Ann, improved", "Delete")
        await stage.until(lambda: stage.texts(thread, ann) == [])
        await _bubble(page, "from Ann, improved").wait_for(state="detached")
        emulator.delete(thread, bob, pushed)
        await _bubble(page, "a better message").wait_for(state="detached")
        # People and topic
        emulator.add(thread, bob, stage.eve, display_name="Eve")
        await page.shows("Eve joined the chat.")
        emulator.remove(thread, bob, stage.eve)
        await page.shows("Eve left the chat.")
        emulator.set_topic(thread, bob, "Hall")
        await page.shows("Hall", exact=True)
        await page.tab.evaluate("window.rename('Attic')")
        await page.shows("Attic", exact=True)
        await page.picture("composite-people")
        assert not page.errors
        emulator.remove(thread, bob, ann)
        await page.tab.wait_for_function("window.participants().join() === 'Bob'")
        await box.fill("am I still here?")
        await box.press("Enter")
        await page.shows("you are no longer in this chat thread")
        await page.picture("composite-removed")

    assert {call.status for call in emulator.calls} <= {200, 201, 202, 204, 403}
    what = "history, a pushed message, sending, edit, delete, typing, receipts, participants, topic, removal"
    client, version = "ChatComposite of `@azure/communication-react`", VERSIONS["@azure/communication-react"]
    ran(client, version, CHROMIUM, what, measured={"pushed_seconds": seconds})


def _bubble(page: Page, text: str) -> Any:
    """A message as people see it: the same text is also read out, and while it is sent there are two of it."""
    return page.tab.locator("[data-ui-status]", has_text=text).first


async def _choose(page: Page, text: str, action: str) -> None:
    """Take an action from the menu of a message of one's own."""
    await _bubble(page, text).hover()
    await page.tab.get_by_role("button", name="More Options").last.click()
    await page.tab.get_by_role("menuitem", name=action).click()


CARD = {
    "attachments": [
        {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "type": "AdaptiveCard",
                "version": "1.3",
                "body": [{"type": "TextBlock", "text": "Which size?"}],
                "actions": [{"type": "Action.Submit", "title": "Large", "data": {"card": "size", "size": "L"}}],
            },
        }
    ]
}
SUGGESTED = {
    "text": "Anything else?",
    "suggestedActions": {"actions": [{"type": "imBack", "title": "No, thanks", "value": "no"}]},
}
MARKER, ADAPTIVE = "microsoft.azure.communication.chat.bot.contenttype", "azurebotservice.adaptivecard"


async def test_webchat_works_with_microsofts_adapter_as_far_as_the_adapter_goes(packages: Path, stage: Stage) -> None:
    emulator, ann, bob, thread = stage.emulator, stage.ann, stage.bob, stage.lobby()
    emulator.send(thread, bob, "an old message", display_name="Bob")
    emulator.send(thread, bob, "an old <b>bold</b> one", type="html", display_name="Bob")
    emulator.add(thread, bob, stage.eve, display_name="Eve")
    scripts = {name: (packages / name).read_bytes() for name in ("webchat.js", "chat-adapter.js")}
    scripts["page.js"] = (SOURCES / "webchat.js").read_bytes()
    async with opened(scripts, stage.visit(thread)) as page:
        await page.hears("rendered")
        await page.shows("an old message", exact=True)
        await stage.until(lambda: emulator.realtime.connections)
        # A pushed message, markdown, an edit and a deletion of it
        begun = time.monotonic()
        pushed = emulator.send(thread, bob, "a **pushed** message", display_name="Bob")
        await page.tab.locator("strong", has_text="pushed").wait_for()
        seconds = time.monotonic() - begun
        emulator.send(thread, bob, "some <b>html</b>", type="html", display_name="Bob")
        await page.tab.locator("b, strong", has_text="html").first.wait_for()
        emulator.edit(thread, bob, pushed, "a better message")
        await page.shows("a better message", exact=True)
        emulator.delete(thread, bob, pushed)
        await page.tab.get_by_text("a better message", exact=True).first.wait_for(state="detached")
        # Typing and sending
        emulator.type(thread, bob, "Bob")
        await page.tab.locator(".webchat__typingIndicator, [class*='typing-indicator']").first.wait_for()
        box = page.tab.locator('[data-id="webchat-sendbox-input"]')
        await box.press_sequentially("from Ann")
        await stage.until(lambda: emulator.typing(thread))
        await box.press("Enter")
        await stage.until(lambda: stage.texts(thread, ann) == ["from Ann"])
        # A card, a click on it, suggested actions
        emulator.send(thread, bob, json.dumps(CARD), display_name="Bob", metadata={MARKER: ADAPTIVE})
        await page.tab.locator("button.ac-pushButton", has_text="Large").click()
        await stage.until(lambda: len(stage.texts(thread, ann)) == 2)
        click = emulator.transcript(thread)[-1]
        emulator.send(thread, bob, json.dumps(SUGGESTED), display_name="Bob", metadata={MARKER: ADAPTIVE})
        await page.picture("webchat-card")
        await page.tab.locator("button.webchat__suggested-action", has_text="No, thanks").click()
        await stage.until(lambda: stage.texts(thread, ann)[2:] == ["no"])
        # People (to add and remove the same one within a second is more than the adapter takes: it throws)
        emulator.add(thread, bob, emulator.create_user(), display_name="Dan")
        await page.shows("Dan joined chat")
        emulator.remove(thread, bob, stage.eve)
        await page.shows("Eve left chat")
        await page.picture("webchat-people")
        # What does not: html of the history is skipped by the adapter, and nothing is ever read
        assert await page.tab.get_by_text("bold", exact=True).count() == 0
        assert ann not in emulator.receipts(thread)

    assert (click.type, json.loads(click.text)) == ("text", {"value": {"card": "size", "size": "L"}})
    assert click.metadata[MARKER] == ADAPTIVE
    assert {call.status for call in emulator.calls} <= {200, 201, 202, 204}
    versions = dict(name.rsplit("@", 1) for name in MANIFEST["scripts of a page"])
    adapter = "@microsoft/botframework-webchat-adapter-azure-communication-chat"
    client = f"`botframework-webchat` with `{adapter}`"
    version = f"{versions['botframework-webchat']}, {versions[adapter]}"
    what = "history, a pushed message, edit, delete, typing, sending, cards, clicks, suggested actions, participants"
    ran(client, version, CHROMIUM, what, measured={"pushed_seconds": seconds})
