"""Requests of a page to the playground, and their answers; the emulator in this process, without bots."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from chatbot.emulator import Emulator, Quirks
from chatbot.playground import Notes, Playground

pytestmark = pytest.mark.virtual_time


class Page:
    """A page: sends frames, and keeps what is pushed."""

    def __init__(self) -> None:
        self.frames, self.frames_read = anyio.create_memory_object_stream[object](100)
        self.pushed: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._news = anyio.Event()

    async def receive(self) -> object:
        try:
            return await self.frames_read.receive()
        except anyio.EndOfStream:
            return None

    async def send(self, text: str) -> None:
        frame = json.loads(text)
        if "re" in frame:
            self._answers[frame["re"]] = frame
        else:
            self.pushed.append(frame)
        self._news.set()
        self._news = anyio.Event()

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Ask, and return the answer or the error."""
        self._number += 1
        await self.frames.send({"id": self._number, "do": do, **fields})
        while self._number not in self._answers:
            await self._news.wait()
        frame = self._answers.pop(self._number)
        answer: dict[str, Any] = frame.get("answer", {"error": frame.get("error")})
        return answer

    async def push(self, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda _frame: True) -> dict[str, Any]:
        """Return the first push of a kind that fits, once it has come."""
        while True:
            for frame in self.pushed:
                if frame["push"] == kind and fits(frame):
                    return frame
            await self._news.wait()


class Notebook:
    """What the playground remembers."""

    def __init__(self) -> None:
        self.people: dict[str, str] = {}
        self.offset = 0.0

    def notes(self) -> Notes:
        return Notes(people=lambda: dict(self.people), save_people=self._save, save_offset=self._set)

    def _save(self, people: dict[str, str]) -> None:
        self.people = people

    def _set(self, offset: float) -> None:
        self.offset = offset


@asynccontextmanager
async def opened(emulator: Emulator, notebook: Notebook | None = None, pages: int = 1) -> AsyncIterator[list[Page]]:
    """Pages of one playground."""
    notes = (notebook or Notebook()).notes()
    playground = Playground(emulator, bots=None, stories=None, notes=notes, quirks=list(Quirks.describe()))
    connected = [Page() for _ in range(pages)]
    async with playground, anyio.create_task_group() as tasks:
        for page in connected:
            tasks.start_soon(playground.serve, page.receive, page.send)
            await page.push("hello")
        yield connected
        for page in connected:
            page.frames.close()
    for page in connected:
        page.frames_read.close()


async def thread_of(page: Page, *names: str) -> tuple[list[str], str]:
    """People of these names in a thread of theirs: their users, and the thread."""
    users = [(await page.ask("create_person", name=name))["user"] for name in names]
    made = await page.ask("create_thread", user=users[0], topic="talk", others=users[1:])
    return users, made["thread"]


async def test_people_who_were_created_are_the_same_after_a_restart() -> None:
    emulator, notebook = Emulator(), Notebook()
    async with opened(emulator, notebook) as (page,):
        user = (await page.ask("create_person", name="Ann"))["user"]
        assert (await page.ask("create_person", name="Ann"))["user"] == user
    async with opened(emulator, notebook) as (page,):
        assert {"user": user, "name": "Ann"} in (await page.push("hello"))["people"]


async def test_what_one_page_does_every_other_page_sees() -> None:
    async with opened(Emulator(), pages=2) as (ann, ben):
        (first, second), thread = await thread_of(ann, "Ann", "Ben")
        await ben.ask("look", user=second)
        await ben.ask("open", thread=thread)
        sent = await ann.ask("send", user=first, thread=thread, content="hello", metadata={"mood": "good"})
        found = await ben.push("messages", lambda frame: frame["messages"][-1].get("text") == "hello")
        message = found["messages"][-1]
        assert (message["id"], message["metadata"], message["display_name"]) == (sent["id"], {"mood": "good"}, "Ann")
        summary = await ben.push("threads", lambda frame: any(one["unread"] == 1 for one in frame["threads"]))
        assert summary["threads"][0]["last"] == "hello"
        await ben.ask("read", user=second, thread=thread, message=sent["id"])
        ben.pushed.clear()
        await ann.ask("type", user=first, thread=thread)
        assert (await ben.push("typing"))["name"] == "Ann"
        await ann.ask("edit", user=first, thread=thread, message=sent["id"], content="hello you")
        changed = await ben.push("messages", lambda frame: frame["messages"][-1].get("text") == "hello you")
        assert changed["messages"][-1]["edited"]
        await ann.ask("delete", user=first, thread=thread, message=sent["id"])
        await ben.push("messages", lambda frame: frame["messages"][-1].get("deleted") is not None)


async def test_html_comes_without_anything_that_acts() -> None:
    async with opened(Emulator()) as (page,):
        (user,), thread = await thread_of(page, "Ann")
        await page.ask("open", thread=thread)
        html = "<b>bold</b><img src=x onerror=a()><a href='javascript:a()'>x</a><a href='https://e.example'>y</a>"
        await page.ask("send", user=user, thread=thread, content=html, type="html")
        shown = (await page.push("messages", lambda frame: "html" in frame["messages"][-1]))["messages"][-1]["html"]
        assert "<b>bold</b>" in shown
        assert 'href="https://e.example"' in shown
        assert "onerror" not in shown
        assert "javascript" not in shown
        assert "<img" not in shown


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


async def upload(page: Page, user: str, thread: str, content: bytes) -> dict[str, Any]:
    text = base64.b64encode(content).decode()
    await page.ask("upload_part", data=text[:20], is_first=True)
    await page.ask("upload_part", data=text[20:])
    return await page.ask("upload", user=user, thread=thread, name="Grüße.png")


async def test_an_image_is_uploaded_in_parts_and_sent_as_html_that_names_it() -> None:
    async with opened(Emulator()) as (page,):
        (user,), thread = await thread_of(page, "Ann")
        await page.ask("open", thread=thread)
        image = (await upload(page, user, thread, PNG))["image"]
        attached = [{"id": image, "attachmentType": "image"}]
        await page.ask("send", user=user, thread=thread, content="<see>", attachments=attached)
        message = (await page.push("messages", lambda frame: "html" in frame["messages"][-1]))["messages"][-1]
        assert message["text"] == f'<p>&lt;see&gt;</p><p><img alt="image" id="{image}"></p>'
        assert (message["attachments"][0]["id"], message["attachments"][0]["type"]) == (image, "image")
        for reader in (user, (await page.ask("create_person", name="Ben"))["user"]):
            shown = await page.ask("image", user=reader, thread=thread, image=image)
            assert base64.b64decode(shown["data"]) == PNG


@pytest.mark.parametrize("content", [b"<svg onload='a()'></svg>", b"", b"MZ"])
async def test_what_is_no_image_is_refused(content: bytes) -> None:
    async with opened(Emulator()) as (page,):
        (user,), thread = await thread_of(page, "Ann")
        assert "PNG" in (await upload(page, user, thread, content))["error"]


async def test_an_upload_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatbot.playground.channel.MAX_UPLOAD", 30)
    async with opened(Emulator()) as (page,):
        (user,), thread = await thread_of(page, "Ann")
        assert "error" not in await page.ask("upload_part", data="x" * 20, is_first=True)
        assert "20 MB" in (await page.ask("upload_part", data="x" * 20))["error"]
        assert "error" in await page.ask("upload", user=user, thread=thread, name="x.png")


async def test_a_refusal_of_the_service_is_told_in_its_words() -> None:
    async with opened(Emulator()) as (page,):
        _, thread = await thread_of(page, "Ann")
        stranger = (await page.ask("create_person", name="Ben"))["user"]
        refused = await page.ask("send", user=stranger, thread=thread, content="hi")
        assert "the service answered 403" in refused["error"]
        assert "write OPERATION:KIND" in (await page.ask("fault", fault="nonsense"))["error"]
        await page.ask("fault", fault="create_thread:429,times=1")
        refused = await page.ask("create_thread", user=stranger, topic="talk", others=[])
        assert "answered 429: too many requests in a short time; wait" in refused["error"]


async def test_a_fault_cuts_off_the_person_but_not_the_page() -> None:
    async with opened(Emulator()) as (page,):
        (user,), thread = await thread_of(page, "Ann")
        await page.ask("fault", fault="send_message:reset,times=1")
        page.pushed.clear()
        assert "fault" in (await page.ask("send", user=user, thread=thread, content="hi"))["error"]
        await page.push("hello", lambda frame: not frame["faults"])  # it has struck as often as it may
        assert "id" in await page.ask("send", user=user, thread=thread, content="hi")
        await page.ask("fault", fault="send_message:reset")
        page.pushed.clear()
        await page.ask("clear_faults")
        await page.push("hello", lambda frame: not frame["faults"])


@pytest.mark.parametrize("seconds", [0, -5, "x", float("nan"), 10**12, None])
async def test_the_clock_goes_forward_only(seconds: Any) -> None:
    notebook = Notebook()
    async with opened(Emulator(), notebook) as (page,):
        assert "error" in await page.ask("advance", seconds=seconds)
    assert notebook.offset == 0


class Starting:
    """Bots of a process that is starting, and their stories."""

    def __init__(self) -> None:
        self.started: list[dict[str, str]] = []
        self.listeners: list[Callable[[dict[str, Any]], None]] = []

    def bots(self) -> list[dict[str, str]]:
        """Return those that have started."""
        return self.started

    def lanes(self) -> list[dict[str, Any]]:
        """Return none."""
        return []

    def source(self, name: str) -> dict[str, Any]:
        """Return none."""
        return {"place": name}

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return nothing."""
        return {"question": question}

    async def restart(self) -> None:
        """Go on starting."""

    def shift_clock(self, offset: float) -> None:
        """Keep the clock."""

    def all(self) -> list[dict[str, Any]]:
        """Return no stories: they are told to pages that are open."""
        return []

    def listen(self, listener: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Tell each story."""
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


async def test_a_page_that_came_before_the_bots_learns_of_them_from_their_first_story() -> None:
    emulator, starting = Emulator(), Starting()
    playground = Playground(emulator, bots=starting, stories=starting, notes=Notebook().notes(), quirks=[])
    page = Page()
    async with playground, anyio.create_task_group() as tasks:
        tasks.start_soon(playground.serve, page.receive, page.send)
        assert (await page.push("hello"))["bots"] == []
        starting.started.append({"name": "echo", "user": emulator.create_user(), "display_name": "Echo"})
        for listener in starting.listeners:
            listener({"id": 1, "thread": None})
        assert (await page.push("hello", lambda frame: bool(frame["bots"])))["bots"] == starting.started
        page.frames.close()
    page.frames_read.close()


async def test_the_clock_of_the_service_goes_forward_and_is_remembered() -> None:
    emulator, notebook = Emulator(), Notebook()
    async with opened(emulator, notebook) as (page,):
        before = emulator.now()
        await page.ask("advance", seconds=3600)
        assert emulator.now() - before >= 3_600_000
    assert notebook.offset == 3600


async def test_a_page_that_goes_leaves_nothing_listening() -> None:
    emulator = Emulator()
    before = len(emulator.world.state.listeners)
    async with opened(emulator) as (page,):
        assert len(emulator.world.state.listeners) == before + 1
        assert page
    assert len(emulator.world.state.listeners) == before
