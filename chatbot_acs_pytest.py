"""Loads the pytest plugin of chatbot-acs, or says which file of the project hides it.

It is outside of the package because pytest loads it before anything else: if a project has a chatbot.py of its own on
Python's path, nothing inside of the package can be imported, and pytest would end with a traceback.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_PLUGIN = "chatbot.testing.pytest_plugin"


def _hidden_by() -> str | None:
    """The file that Python imports instead of the framework; None if nothing hides it."""
    try:
        if find_spec(_PLUGIN) is not None:
            return None
    except ModuleNotFoundError:
        pass
    found = sys.modules.get("chatbot")
    return getattr(found, "__file__", None) or str(Path("chatbot").absolute())


_HIDDEN_BY = _hidden_by()

if _HIDDEN_BY is None:
    pytest_plugins = [_PLUGIN]
else:

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests() -> None:
        """Refuse to run, with a sentence instead of a traceback."""
        msg = (
            f"{_HIDDEN_BY}: Python imports this instead of the bot framework chatbot-acs, because it is called "
            "chatbot, too; rename it, or run pytest with -p no:chatbot if this project has no bots"
        )
        raise pytest.UsageError(msg)
