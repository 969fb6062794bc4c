"""The webhook of Event Grid: who knows the key rings for threads, and can do nothing else."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatbot.bot import Bot
from chatbot.config import Config
from chatbot.errors import StateError
from chatbot.model import ThreadId
from chatbot.polling.eventgrid import MOST_BYTES, InvalidDelivery, read
from chatbot.runtime.status_server import CannotListen, serve_pages

PATH: Final = "/eventgrid"


@asynccontextmanager
async def webhook_served(config: Config, bots: Sequence[Bot]) -> AsyncIterator[None]:
    """Hear Event Grid while the block runs, if bots.yaml says where.

    Args:
        config: says where, and by which key.
        bots: those that run at the moment.

    Raises:
        StateError: nobody can listen there.
    """
    if config.event_grid is None:
        yield
        return
    app = webhook(bots, config.event_grid.key.get_secret_value())
    try:
        serving = serve_pages(app, *config.event_grid.listen)
    except CannotListen as error:
        raise StateError(config.problem(("event_grid", "listen"), str(error))) from error
    async with serving as address:
        structlog.get_logger().info("webhook.served", address=f"{address}{PATH}")
        yield


def webhook(bots: Sequence[Bot], key: str) -> Starlette:
    """The webhook as an ASGI application.

    Args:
        bots: whose threads are rung; those that run at the moment.
        key: what a delivery must carry, as `?key=` or as `Authorization: Bearer`.
    """
    log = structlog.get_logger()

    async def deliver(request: Request) -> Response:
        if not any(hmac.compare_digest(given, key.encode()) for given in _keys(request)):
            return Response(status_code=401)
        body = await _body(request)
        if body is None:
            return Response(f"a delivery has at most {MOST_BYTES} bytes", status_code=413)
        try:
            delivery = read(body)
        except InvalidDelivery as error:
            log.warning("delivery.refused", reason=str(error))
            return Response(str(error), status_code=400)
        for thread in delivery.threads:
            for bot in _concerned(bots, thread, is_stirred=thread in delivery.changed):
                bot.watcher.told(thread)
        if delivery.validation is not None:
            log.info("webhook.validated")
            return JSONResponse({"validationResponse": delivery.validation})
        return Response()

    return Starlette(routes=[Route(PATH, deliver, methods=["POST"])])


def _concerned(bots: Sequence[Bot], thread: ThreadId, *, is_stirred: bool) -> Sequence[Bot]:
    """The bots to tell of a thread: all that may be in it.

    A message in a thread that some are in is no reason for the others to ask for their own threads.
    """
    inside = [bot for bot in bots if bot.watcher.is_in(thread)]
    return bots if is_stirred or not inside else inside


def _keys(request: Request) -> list[bytes]:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [given.encode() for given in [*bearer, *request.query_params.getlist("key")]]


async def _body(request: Request) -> bytes | None:
    """The body; None if it is larger than any delivery."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
