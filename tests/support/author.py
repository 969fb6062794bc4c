"""The environment in which the author of a bot starts commands."""

from __future__ import annotations

import os
from typing import Final

_TOOLS: Final = ("hypothesispytest", "inline_snapshot", "xdist", "xdist.looponfail", "timeout", "anyio")
"""Plugins of pytest that only the project's own tests need: to import them takes longer than the tests of a bot."""


def author_environment() -> dict[str, str]:
    """Return the environment without a resource of Azure, and with the plugins of pytest that authors have."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ACS_", "PYTEST"))}
    return environ | {"PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in _TOOLS)}
