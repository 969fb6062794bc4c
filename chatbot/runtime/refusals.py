"""Failures of the service as whoever starts or reloads bots reads them: where it is named, and what can be done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chatbot.config import Config
from chatbot.errors import Forbidden, OutcomeUnknown, ServiceError, Unauthorized, Unreachable
from chatbot.runtime.connection import Connection


@contextmanager
def explaining(config: Config, connection: Connection) -> Iterator[None]:
    """Raise the service's failures with the place where it is named, and with what can be done."""
    try:
        yield
    except ServiceError as error:
        remedy = {
            Unreachable: "check the endpoint, this machine's network and its proxy",
            OutcomeUnknown: "try again; check this machine's network and its proxy",
            Unauthorized: connection.remedy,
            Forbidden: connection.remedy,
        }.get(type(error), "see what the service says about it")
        problem = config.problem(("service",), f"{error}; {remedy}")
        raise ServiceError(problem, status=error.status, code=error.code) from error
