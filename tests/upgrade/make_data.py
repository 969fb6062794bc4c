"""Make the stored data of the upgrade tests with the version of chatbot that is installed.

Run it with an old version's interpreter, from that version's checkout:

    .venv/bin/python PATH/TO/tests/upgrade/make_data.py PATH/TO/tests/upgrade/f8eade2

It writes `store.sqlite`, copied while the bot ran, as a killed process leaves it, and `emulator.jsonl`, the chat
service's side of the same conversations. The store has every kind of row, and half surrogates in everything that was
stored ASCII-escaped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path

import chatbot.stores.conversation as conversation

import chatbot.stores.base as base
from chatbot.dispatch import Rate
from chatbot.emulator import World
from chatbot.emulator.persistence import persist
from chatbot.stores import SqliteStore
from chatbot.testing import chat
from chatbot.testing.virtual_time import VirtualTimeLoop

HERE = Path(__file__).parent
HALF = "half \ud83d"
FAR_OFF_MS = 1_800_000_000_000


def load_orders():
    """Load the plugin under the module name that is stored with its states."""
    spec = importlib.util.spec_from_file_location("orders", HERE / "orders.py")
    module = sys.modules["orders"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_store(source: Path, target: Path) -> None:
    """Copy a store that is open: the copy says that its holder was killed."""
    with sqlite3.connect(source) as open_store, sqlite3.connect(target) as copy:
        open_store.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("VACUUM")


async def make(target: Path) -> None:
    orders = load_orders()
    options = {"rate": Rate(100, timedelta(days=1)), "raise_failures": False}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        world = World(seed=0)
        with persist(world, directory / "emulator.jsonl"):
            store = SqliteStore(directory / "store.db")
            async with chat(orders.orders(is_old=True), world=world, store=store, **options) as room:
                people = await fill(room)
                await add_half_surrogates(store_of(room), people)
                copy_store(directory / "store.db", target / "store.sqlite")
                shutil.copy(directory / "emulator.jsonl", target / "emulator.jsonl")
                await room.kill()
    (target / "people.json").write_text(json.dumps(people, indent=2) + "\n")


def store_of(room):
    """Return the store of a chat's bots, for which virtual time stands still."""
    return room._harness.process._store


async def fill(room) -> dict[str, str]:
    """Fill the store with rows of every kind, and return everybody's ids."""
    ann, bob, other = room.user("Ann"), room.user("Bob"), room.another("left")
    eve, fay = other.user("Eve"), other.user("Fay")
    await ann.says("/add tea", "/add cake", "/pay", "/remind tea", "/break cup", "/break plate")
    await bob.says("/add bread", "/say thanks", "/remind Bob-secret", "/order", "Bob-secret")
    await ann.says("/order", "Ann-secret")
    await ann.reads()
    await room.advance(hours=7)
    await eve.says("/say welcome", "/remind leaving")
    await fay.joins()
    await eve.removes(room.bot)
    room.emulator.faults.add(f"send_message:400,times=1,user={room.bot.user}")
    await fay.says("hello")
    carl, dora = room.user("Carl"), room.user("Dora")
    await dora.says("/say refused")
    room.emulator.faults.add(f"send_message:503,user={room.bot.user}")
    with room.not_waiting():
        await carl.says("/say late")
        await asyncio.sleep(900)
        hanging = await dora.says("/hang")
        await asyncio.sleep(900)
    attempt = base.Attempt(hanging, 1)
    letter = next(one for one in await store_of(room).dead_letters(room.bot.user) if "plate" in str(one.event))
    await store_of(room).commit(
        room.bot.user, [base.BeginAttempt(room.thread, attempt), base.ReviveDeadLetter(letter.id)]
    )
    people = {person.name: person.user for person in (ann, bob, carl, dora, eve, fay)}
    return people | {"bot": room.bot.user, "room": room.thread, "left": other.thread}


async def add_half_surrogates(store, people) -> None:
    """Store what a service can say and no UTF-8 text can hold, in everything that is stored ASCII-escaped."""
    bot = people["bot"]
    dialog = next(one for one in await store.dialogs(bot) if one.user == people["Bob"])
    letter = (await store.dead_letters(bot))[0]
    message = dataclasses.replace(
        letter.event.message, content=f"{HALF} of {people['Eve']}", sender_display_name=HALF, sender=people["Eve"]
    )
    event = dataclasses.replace(letter.event, message=message)
    journal = json.dumps(json.loads(dialog.journal.replace("Bob-secret", HALF)), separators=(",", ":"))
    asleep = dataclasses.replace(
        dialog, id="dhalf", user=people["Eve"], event=event, journal=journal, is_waiting=False, event_key="x"
    )
    timer = conversation.TimerRecord(
        "thalf", "orders.orders.<locals>.remind", FAR_OFF_MS, people["room"], json.dumps({"what": HALF}), people["Eve"]
    )
    await store.commit(
        bot,
        [
            base.SaveDeadLetter(dataclasses.replace(letter, id="0123456789", event=event)),
            conversation.SaveDialog(asleep),
            conversation.SetTimer(timer),
            conversation.SaveResult("half", json.dumps(HALF), letter.died_ms),
        ],
    )


def run(work: Coroutine[None, None, None]) -> None:
    loop = VirtualTimeLoop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(work)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    run(make(Path(sys.argv[1])))
