"""The playground in a real browser: everything that a bot's author does there, against a real `chatbot run`.

Run by .ci/run: needs Debian's chromium, and playwright with axe. Screenshots and frame times go to the directory in
CHATBOT_PLAYGROUND_PICTURES, by default into the user's cache (`chatbot-tests/playground`).
"""

from __future__ import annotations

import base64
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.playground import Daemon, begin, bots_in, page_of, picture, said, say, story_of, until, wait_for

pytestmark = [pytest.mark.playground, pytest.mark.timeout(300)]


def test_a_person_talks_to_bots_and_sees_the_story_of_a_message(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        page.get_by_label("Your name").wait_for()
        picture(page, "welcome")
        assert "token" not in page.url
        begin(page)
        picture(page, "empty")
        say(page, "/roll 2 20")
        said(page, "2d20, roll 1").wait_for()
        say(page, "/roll 3")
        said(page, "3d6, roll 2").wait_for()

        inspector = story_of(page, "/roll 3")
        inspector.get_by_text("Ran").first.wait_for()
        dice = inspector.locator(".story", has_text="Dice")
        dice.get_by_text("Read receipt sent").wait_for()
        dice.get_by_text("Sent", exact=True).wait_for()
        text = dice.inner_text()
        picture(page, "story")
        assert re.search(r"playbots/dice\.py:\d+", text)
        assert re.search(r"dice\s+3", text), "the arguments of the handler"
        assert '"count": 1' in text, "the state before"
        assert '"count": 2' in text, "the state after"
        assert "Found by a poll" in text
        assert "send_message" in text
        assert "other handlers did not match" in text
        assert re.search(r"send_message\s+[\d.]+ ms\s+ok, quota left: \d", text)
        dice.locator(".others summary").click()
        others = dice.locator(".others").inner_text()
        assert "the message does not begin with /hello" in others
        assert "not tried: playbots.dice.roll came first" in others
        clerk = inspector.locator(".story", has_text="Clerk").inner_text()
        assert "no handler" in clerk
        dice.locator(".others").get_by_role("button", name="dice.hello").click()
        source = page.get_by_role("dialog", name="dice.hello")
        assert re.search(r"playbots/dice\.py:\d+", source.inner_text())
        assert "What is your name?" in source.inner_text()
        source.get_by_role("button", name="Copy file and line").click()
        page.get_by_role("alert").get_by_text("Copied.").wait_for()
        place = page.evaluate("navigator.clipboard.readText()")
        assert re.fullmatch(re.escape(str(daemon.directory)) + r"/playbots/dice\.py:\d+", place)
        picture(page, "source")
        page.keyboard.press("Escape")
        assert "message=" in page.url, "the place is in the address"
        page.reload()
        page.locator(".story", has_text="Dice").get_by_text("Read receipt sent").wait_for()


def test_a_failure_shows_its_traceback_and_its_dead_letter_can_be_retried(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        say(page, "/boom")
        page.locator(".message .bad").wait_for()
        inspector = story_of(page, "/boom")
        inspector.get_by_text("this handler fails").first.wait_for()
        inspector.locator("summary", has_text="Traceback").click()
        assert "raise ValueError" in inspector.inner_text()
        picture(page, "failure")
        (daemon.directory / "repaired").touch()
        page.get_by_role("tab", name="Bots").click()
        inspector.get_by_role("button", name="Retry").wait_for()
        inspector.get_by_role("img", name="1 failed").first.wait_for()
        inspector.locator(".run.failed").first.click()
        inspector.get_by_text("Story of a message").wait_for()
        page.get_by_role("tab", name="Bots").click()
        inspector.get_by_text(re.compile("Quota left: .* 10 receipts")).first.wait_for()
        inspector.get_by_role("button", name="Retry").wait_for()
        picture(page, "bots")
        inspector.get_by_role("button", name="Retry").click()
        said(page, "It works again.").wait_for()
        inspector.get_by_role("heading", name="Dead letters").wait_for(state="detached")


def test_lanes_show_what_waits_and_the_story_each_attempt(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        page.get_by_role("tab", name="Bots").click()
        dice = page.locator(".card", has_text="Dice")
        dice.locator(".rows .pill", has_text="idle").first.wait_for()
        say(page, "/stubborn")
        dice.locator(".rows .pill.warn", has_text=re.compile(r"again in \d s")).wait_for()
        picture(page, "lanes")
        story = story_of(page, "/stubborn").locator(".story", has_text="Dice")
        story.get_by_text("Attempt 2", exact=True).wait_for()
        story.get_by_text(re.compile(r"Retried in [\d.]+ s")).first.wait_for()
        page.get_by_role("tab", name="Tools").click()
        page.get_by_label("Any fault").fill(f"send_message:429,retry-after=1,user={user_of(daemon, 'dice')}")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_role("button", name="1 fault").wait_for()
        (daemon.directory / "repaired").touch()
        page.get_by_role("tab", name="Bots").click()
        dice.locator(".rows .pill.warn", has_text="1 to send").wait_for()
        page.get_by_role("tab", name="Tools").click()
        page.get_by_role("button", name="End all faults").click()
        said(page, "It works at last.").wait_for()
        page.get_by_role("tab", name="Story").click()
        story.get_by_text("Sending failed").first.wait_for()
        story.get_by_text("Sent", exact=True).wait_for()


def user_of(daemon: Daemon, name: str) -> str:
    facts = json.loads((daemon.directory / ".chatbot" / "run.json").read_text())
    user: str = next(bot["user_id"] for bot in facts["bots"] if bot["name"] == name)
    return user


def test_several_people_talk_in_windows_of_their_own(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        page.get_by_role("button", name="Second window").click()
        page.get_by_role("textbox", name="Name").fill("Ben")
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Create and open").click()
        ben = opened.value
        ben.get_by_text("Ben is not in this thread").wait_for()
        ben.get_by_role("button", name=re.compile("^Join")).click()
        ben.get_by_role("textbox", name="Message").wait_for()
        page.bring_to_front()  # a page behind another one draws once a second
        page.get_by_role("button", name="Second window").click()
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Open as Ben").click()
        opened.value.get_by_text("Ben joined").or_(opened.value.get_by_text("Ann added Ben")).first.wait_for()
        opened.value.close()
        page.bring_to_front()
        page.get_by_label("You are").select_option("New person…")
        page.get_by_role("textbox", name="Name").fill("Eve")
        page.get_by_role("button", name="Create and switch").click()
        page.get_by_text("Eve is not in this thread").wait_for()
        page.get_by_label("You are").select_option("Ann")

        ben.bring_to_front()
        ben.get_by_role("textbox", name="Message").press_sequentially("hello Ann")
        page.get_by_text("Ben is typing").wait_for()
        ben.keyboard.press("Enter")
        said(page, "echo: hello Ann").wait_for()
        own = ben.locator(".message", has_text="hello Ann").first
        own.get_by_text(re.compile("read by.*Dice")).wait_for()

        own.click()
        ben.get_by_role("tab", name="Details").click()
        panel = ben.get_by_role("tabpanel")
        for fact in ("Id", "Version", "Sequence"):
            panel.get_by_text(fact, exact=True).wait_for()
        panel.get_by_role("button", name="Edit").click()
        panel.get_by_label("Text").fill("hello everybody")
        panel.get_by_role("button", name="Save").click()
        page.get_by_text("edited", exact=True).wait_for()
        panel.get_by_role("button", name="Delete").click()
        page.locator(".gone").wait_for()

        page.bring_to_front()
        page.get_by_role("button", name="Rename").click()
        page.get_by_role("textbox", name="Topic").fill("A new topic")
        page.keyboard.press("Enter")
        ben.get_by_role("heading", name="A new topic").wait_for()
        page.get_by_role("button", name="4 participants").click()
        page.get_by_role("button", name="Remove Clerk").click()
        page.get_by_role("button", name="Remove Clerk").wait_for(state="detached")
        page.get_by_role("dialog").get_by_role("button", name="Add").click()
        page.get_by_role("button", name="Remove Clerk").wait_for()
        picture(page, "participants")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="New thread").click()
        page.get_by_role("textbox", name="Topic").fill("Ann and Ben alone")
        for name in ("Dice", "Clerk", "Ben"):
            page.get_by_role("dialog").get_by_label(name, exact=False).click()
        page.get_by_role("button", name="Create", exact=True).click()
        page.get_by_role("button", name="2 participants").wait_for()
        page.get_by_role("button", name=re.compile("^A new topic")).click()
        page.get_by_role("heading", name="A new topic").wait_for()
        ben.bring_to_front()
        ben.get_by_text("Ann added Clerk").wait_for()
        ben.get_by_role("textbox", name="Message").fill("unread")
        page.bring_to_front()
        page.get_by_role("button", name=re.compile("^Lobby")).click()
        page.get_by_text("Ann is not in this thread").wait_for()
        ben.bring_to_front()
        ben.keyboard.press("Enter")
        page.bring_to_front()
        page.get_by_label("2 unread").wait_for()
        page.get_by_role("button", name=re.compile("^A new topic")).click()
        page.get_by_label("2 unread").wait_for(state="detached")


def test_metadata_and_html_are_sent_as_the_service_takes_them(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        page.get_by_label("Type").select_option("html")
        page.get_by_role("button", name="Metadata").click()
        page.get_by_label("Metadata, name=value a line").fill("order = 7")
        say(page, "<b>bold</b> words")
        message = page.locator(".message .text.html", has_text="bold words")
        assert message.locator("b").inner_text() == "bold"
        message.click()
        page.get_by_role("tab", name="Details").click()
        panel = page.get_by_role("tabpanel")
        panel.get_by_text("order", exact=True).wait_for()
        assert "html" in panel.inner_text()
        page.get_by_label("Type").select_option("text")
        say(page, "／ｒｏｌｌ　２")
        said(page, "2d6, roll 1").wait_for()
        story_of(page, "／ｒｏｌｌ").get_by_text("Normalized to").first.wait_for()


def test_images_and_files_are_attached_as_the_service_takes_them(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgaPj/HwAD/gKA6f0hoQAAAABJRU5ErkJggg=="
    )
    with page_of(browser, link) as page:
        begin(page)
        page.get_by_role("button", name="Attach").click()
        files = [
            {"name": "dot.png", "mimeType": "image/png", "buffer": png},
            {"name": "note.txt", "mimeType": "text/plain", "buffer": b"no image"},
        ]
        page.get_by_label("Images").set_input_files(files)
        page.get_by_role("alert").get_by_text("images may be PNG").wait_for()
        for name, address in (("plan.pdf", "https://files.example/plan.pdf"), ("bad", "javascript:window.hit=1")):
            page.get_by_label("File name").fill(name)
            page.get_by_label("Address").fill(address)
            page.get_by_role("button", name="Add file").click()
        picture(page, "attach")
        say(page, "look <here>")
        sent = page.locator(".message.mine").last
        image = sent.get_by_role("img", name="dot.png")
        until(page, "document.querySelector('.picture')?.naturalWidth === 1")
        assert image.get_attribute("src").startswith("data:image/png;base64,")
        assert "look <here>" in sent.inner_text()
        assert sent.get_by_role("link").count() == 1
        assert sent.get_by_role("link", name="plan.pdf").get_attribute("href") == "https://files.example/plan.pdf"
        said(page, "2 files and dot.png").wait_for()
        picture(page, "attached")
        sent.click(position={"x": 5, "y": 5})
        page.get_by_role("tab", name="Details").click()
        panel = page.get_by_role("tabpanel")
        panel.get_by_role("heading", name="Attachments").wait_for()
        panel.get_by_role("button", name="Edit").click()
        panel.get_by_label("Metadata").fill("mood = good")
        panel.get_by_role("button", name="Save").click()
        panel.get_by_text("mood", exact=True).wait_for()
        panel.get_by_role("button", name="Edit").click()
        panel.get_by_label("Metadata").fill("")
        panel.get_by_role("button", name="Save").click()
        panel.get_by_text("mood", exact=True).wait_for(state="detached")


def test_hostile_names_html_and_scripts_do_nothing(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    attack = (
        "<script>window.hit=1</script><img src=x onerror='window.hit=1'><svg onload='window.hit=1'></svg>"
        "<a href='javascript:window.hit=1'>click</a><style>*{display:none}</style>"
        "<iframe src='http://192.0.2.1/'></iframe><form action='http://192.0.2.1/'><button>go</button></form>"
        "<div class='top' style='position:fixed;inset:0'>cover</div>"
    )
    with page_of(browser, link) as page:
        begin(page, "<img src=x onerror=window.hit=1>")
        say(page, attack)
        said(page, "<script>window.hit=1</script>").wait_for()
        page.get_by_label("Type").select_option("html")
        say(page, attack)
        page.locator(".text.html", has_text="cover").wait_for()
        shown = page.locator(".text.html").first.inner_html()
        page.locator(".text.html").first.get_by_text("click").click()
        assert page.evaluate("window.hit") is None
        for forbidden in ("script", "img", "svg", "style", "iframe", "form", "javascript", "class"):
            assert forbidden not in shown


def test_a_name_does_not_turn_the_words_around_it(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page, "\u202eevil שלום")
        say(page, "hello")
        said(page, "echo: hello").wait_for()
        page.get_by_role("button", name="3 participants").click()
        page.get_by_role("button", name=re.compile("^Leave")).click()
        page.keyboard.press("Escape")
        page.get_by_text("is not in this thread").wait_for()
        for word in (" added ", " set the topic: ", " left", " is not in this thread.", "read by "):
            assert page.evaluate(RUNS_TO_THE_RIGHT, word), word
        assert page.locator(".message .avatar").first.inner_text() == "E"
        picture(page, "turned")


RUNS_TO_THE_RIGHT = """
(word) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let found = null;
    while (walker.nextNode()) if (walker.currentNode.data === word) found = walker.currentNode;
    if (!found) return false;
    const letter = (at) => {
        const range = document.createRange();
        range.setStart(found, at);
        range.setEnd(found, at + 1);
        return range.getBoundingClientRect().left;
    };
    const at = word.search(/\\S/);
    return letter(at) < letter(at + 1) && letter(at + 1) < letter(at + 2);
}
"""


HOSTILE = """
async (given) => {
    const [page, token] = given;
    const socket = page.replace("http", "ws") + "channel";
    const read = (options) => fetch(page, options).then((a) => a.text()).catch(() => "refused");
    const connect = () => new Promise((done) => {
        const channel = new WebSocket(socket);
        channel.onopen = () => channel.send(JSON.stringify({ token }));
        channel.onmessage = (event) => done(event.data);
        channel.onclose = () => done("refused");
    });
    const script = () => new Promise((done) => {
        const element = document.createElement("script");
        element.onload = () => done("loaded");
        element.onerror = () => done("refused");
        element.src = page + "vendor/preact-htm.js";
        document.head.append(element);
    });
    const frame = () => new Promise((done) => {
        const element = document.createElement("iframe");
        element.onload = () => {
            try { done(element.contentWindow.document.body.innerText); } catch { done("refused"); }
        };
        element.src = page + "#token=" + token;
        document.body.append(element);
    });
    return {
        read: await read({}), blind: await read({ mode: "no-cors" }),
        channel: await connect(), script: await script(), frame: await frame(),
    };
}
"""


def test_another_site_in_the_same_browser_can_neither_read_nor_drive_it(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    address, _, token = link.partition("#token=")
    with page_of(browser, link) as page:
        begin(page)
    context = browser.new_context()
    with http_server(daemon.directory / "playbots") as elsewhere:
        other = context.new_page()
        other.goto(elsewhere)
        found = other.evaluate(HOSTILE, [address, token])  # even with the token
        opened = context.new_page()
        opened.goto(f"{address}#as=somebody")
        opened.get_by_text("This link is not valid").wait_for()
        assert [frame.url for frame in other.frames if frame.url.startswith(address)] == [], "it cannot be embedded"
        assert context.cookies() == []
    context.close()
    # A request without CORS can be sent by anybody; its answer is never readable. An embedded page is not shown.
    assert found.pop("blind") in ("", "refused")
    assert found == dict.fromkeys(("read", "channel", "script", "frame"), "refused")


@contextmanager
def http_server(directory: Path) -> Iterator[str]:
    """Another site on this machine."""
    (directory / "index.html").write_text("<!doctype html><title>elsewhere</title><body></body>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_an_hour_passes_for_bots_and_service_at_once(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        say(page, "/remind")
        said(page, "I will.").wait_for()
        page.get_by_role("tab", name="Bots").click()
        page.get_by_role("heading", name="Timers").wait_for()
        page.get_by_role("tab", name="Tools").click()
        page.get_by_role("button", name="1 hour").click()
        said(page, "An hour has passed.").wait_for()
        page.get_by_text("Clock +1 h").wait_for()
        say(page, "still there")
        said(page, "echo: still there").wait_for()
        picture(page, "tools")


def test_faults_strike_the_bots_and_the_story_shows_them(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        say(page, "first")
        said(page, "echo: first").wait_for()
        page.get_by_role("tab", name="Tools").click()
        page.get_by_role("button", name="Lose the answer").click()
        page.get_by_role("button", name="2 faults").wait_for()
        say(page, "second")
        said(page, "echo: second").wait_for()
        page.get_by_role("button", name="1 fault").wait_for()  # that of Dice has struck
        inspector = story_of(page, "second")
        inspector.get_by_text("outcome_unknown").first.wait_for()
        inspector.get_by_text("Found in the thread: it was sent").wait_for()
        picture(page, "fault")
        assert page.locator(".message .text", has_text="echo: second").count() == 1
        page.get_by_role("tab", name="Tools").click()
        page.get_by_role("button", name="End all faults").click()
        page.get_by_role("button", name="1 fault").wait_for(state="detached")
        page.get_by_role("combobox", name=re.compile("^For")).select_option("Clerk")
        for number, name in enumerate(("Throttle sending", "Service error", "Outage"), 1):
            page.get_by_role("button", name=name).click()
            page.get_by_role("button", name=re.compile(f"^{number} fault")).wait_for()
        page.get_by_role("button", name="End all faults").click()
        page.get_by_role("button", name="Expire the token").click()  # strikes at the next poll
        page.get_by_label("Any fault").fill("nonsense")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_role("alert").get_by_text("write OPERATION:KIND").wait_for()
        page.get_by_text("Quirks", exact=True).click()
        page.locator(".quirk", has_text="exactly at startTime").first.get_by_role("combobox").select_option("exclusive")
        page.reload()
        page.get_by_role("tab", name="Tools").click()
        page.get_by_text("Quirks", exact=True).click()
        quirk = page.locator(".quirk", has_text="exactly at startTime").first
        assert quirk.get_by_role("combobox").input_value() == "exclusive"


def test_restarted_bots_are_cut_off_and_go_on_from_the_store_opened_again(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        say(page, "/hello")
        said(page, "What is your name?").wait_for()
        inspector = story_of(page, "/hello")
        inspector.locator("summary", has_text="Journal").click()
        inspector.locator("pre", has_text="began").wait_for()
        page.get_by_role("tab", name="Bots").click()
        dice = page.locator(".card", has_text="Dice")
        dice.get_by_role("heading", name="Dialogs that wait").wait_for()
        page.get_by_role("button", name="Restart the bots").click()
        page.get_by_role("alert").get_by_text("Restarted").wait_for()
        say(page, "Ann")
        said(page, "Hi Ann!").wait_for()
        say(page, "/slow")
        dice.locator(".rows .pill.good", has_text="MessageReceived").wait_for()
        # What is shown may be of an earlier message: cut off before its attempt has begun, this one would hang.
        wait_for(page, (daemon.directory / "hung").exists)
        dice.get_by_text("1 running").wait_for()
        page.get_by_role("button", name="Restart the bots").click()
        said(page, "The second attempt.").wait_for()
        inspector = story_of(page, "/slow")
        inspector.get_by_text("BeginAttempt").first.wait_for()  # as after a kill
        (daemon.directory / "playbots" / "dice.py").write_text("this is no Python\n")
        page.get_by_role("tab", name="Bots").click()
        page.get_by_role("button", name="Restart the bots").click()
        refused = page.get_by_role("alert").get_by_text("dice.py")
        refused.wait_for()
        assert "mono" in refused.evaluate("(element) => getComputedStyle(element).fontFamily"), "carets stand in place"
        say(page, "still there")
        said(page, "echo: still there").wait_for()


def test_a_conversation_is_copied_as_a_test_that_passes(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        say(page, "/roll 2 20")
        said(page, "2d20, roll 1").wait_for()
        page.get_by_role("tab", name="Tools").click()
        tests = {}
        for form in ("pytest", ".chat file"):
            page.get_by_role("button", name=form).click()
            page.get_by_text("Copied as a test.").wait_for()
            starts = "import pytest" if form == "pytest" else "compare: replies"
            until(page, f"document.querySelector('textarea[aria-label=Test]')?.value.includes({starts!r})")
            tests[form] = page.evaluate("navigator.clipboard.readText()")
    daemon.stop()
    (daemon.directory / "test_copied.py").write_text(tests["pytest"])
    (daemon.directory / "copied.chat").write_text(tests[".chat file"])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_copied.py", "copied.chat"]
    (daemon.directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    done = subprocess.run(command, cwd=daemon.directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_page_connects_again_after_the_daemon_was_killed(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        say(page, "before")
        said(page, "echo: before").wait_for()
        daemon.kill()
        page.get_by_text("Connecting again").wait_for()
        assert daemon.start() == link
        page.get_by_text("Connecting again").wait_for(state="detached")
        said(page, "echo: before").wait_for()
        say(page, "after")
        said(page, "echo: after").wait_for()
        page.reload()
        said(page, "echo: after").wait_for()
    daemon.stop()
    token = link.partition("#token=")[2]
    logged = "\n".join(line for line in daemon.output.splitlines() if "#token=" not in line)
    assert token not in logged
    assert (daemon.directory / ".chatbot" / "playground.json").stat().st_mode & 0o077 == 0
    assert "playground.served" in logged


def test_an_emulator_without_bots_has_a_playground(browser: Any) -> None:
    command = [sys.executable, "-m", "chatbot", "emulator", "--playground", "--json"]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with page_of(browser, json.loads(process.stdout.readline())["playground"]) as page:
            page.get_by_label("Your name").fill("Ann")
            page.get_by_role("button", name="Start a thread").click()
            say(page, "hello")
            said(page, "hello").wait_for()
            page.get_by_role("tab", name="Bots").click()
            page.get_by_text("This emulator runs without bots.").wait_for()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def test_without_playground_nothing_is_served(tmp_path: Path) -> None:
    bots_in(tmp_path)
    daemon = Daemon(tmp_path, "--no-playground")
    try:
        assert daemon.start() == ""
    finally:
        daemon.stop()
    assert not (tmp_path / ".chatbot" / "playground.json").exists()
    assert "playground.served" not in daemon.output
