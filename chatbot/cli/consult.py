"""How commands ask about the bots' memory: the daemon that runs, or, where none does, the store itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from chatbot.config import load_config
from chatbot.runtime.asking import ask, find_daemon
from chatbot.runtime.caretaker import Caretaker
from chatbot.runtime.control import ControlDirectory
from chatbot.runtime.logs import logging_to
from chatbot.stores import MemoryStore, visit_store
from chatbot.stores.base import Store


def consult(config: Path, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask whoever has the store open, or open it for the moment.

    Args:
        config: the bots.yaml.
        question: see `Caretaker.answer`.

    Raises:
        ChatbotError: the question cannot be answered.
    """
    with logging_to(sys.stderr, format="console", level="warning"):
        daemon = find_daemon(ControlDirectory(config.absolute().parent), config)
        if daemon is not None:
            return anyio.run(ask, daemon, question)
        settings = load_config(config, os.environ)
        store = visit_store(settings.store.get_secret_value(), base_dir=settings.directory)
        # Where nothing was ever kept, an empty memory knows as much, and no file is made.
        return anyio.run(_visit, store or MemoryStore(), question)


async def _visit(store: Store, question: Mapping[str, Any]) -> Mapping[str, Any]:
    async with store:
        return await Caretaker(store).answer(question)
