"""Worker threads for chatbot's own blocking calls.

anyio lends 40 threads to everybody in a process. Handlers that wait in threads for something that never answers can
keep all of them, and then the daemon could not even be asked for its status. So chatbot's own calls have their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

T = TypeVar("T")
Args = TypeVarTuple("Args")

THREADS: Final = 16

_limiter: RunVar[CapacityLimiter] = RunVar("chatbot_worker_threads")


async def run_in_thread(function: Callable[[*Args], T], *args: *Args) -> T:
    """Call a function in a worker thread that code of plugins cannot occupy, and return its result."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
