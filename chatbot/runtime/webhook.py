"""The webhook of Event Grid: a caller with the key can make bots poll threads, and nothing else."""

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
from chatbot.config.schema import EventGridConfig
from chatbot.errors import StateError
from chatbot.http_listener import CannotListen
from chatbot.model import ThreadId
from chatbot.polling.eventgrid import MAX_BYTES, InvalidDelivery, read_delivery
from chatbot.runtime.status_pages import serve_pages

PATH: Final = "/eventgrid"


@asynccontextmanager
async def webhook_served(config: Config, event_grid: EventGridConfig, bots: Sequence[Bot]) -> AsyncIterator[None]:
    """Serve the webhook while the block runs.

    Args:
        config: the bots.yaml, for errors.
        event_grid: where the webhook is served, and its key.
        bots: the running bots; a reload changes this list.

    Raises:
        StateError: the address cannot be listened on.
    """
    app = webhook(bots, event_grid.key.get_secret_value())
    try:
        serving = serve_pages(app, *event_grid.listen)
    except CannotListen as error:
        raise StateError(config.problem(("event_grid", "listen"), str(error))) from error
    async with serving as address:
        structlog.get_logger().info("webhook.served", address=f"{address}{PATH}")
        yield


def webhook(bots: Sequence[Bot], key: str) -> Starlette:
    """Return the webhook as an ASGI application.

    Args:
        bots: the running bots; a reload changes this list.
        key: required of every delivery, as `?key=` or as `Authorization: Bearer`.
    """
    log = structlog.get_logger()

    async def deliver(request: Request) -> Response:
        if not any(hmac.compare_digest(given, key.encode()) for given in _keys(request)):
            return Response(status_code=401)
        body = await _body(request)
        if body is None:
            return Response(f"the delivery is larger than {MAX_BYTES} bytes", status_code=413)
        try:
            delivery = read_delivery(body)
        except InvalidDelivery as error:
            log.warning("delivery.refused", reason=str(error))
            return Response(str(error), status_code=400)
        for thread in delivery.threads:
            for bot in _bots_to_notify(bots, thread, has_changed=thread in delivery.changed):
                bot.watcher.handle_notification(thread)
        if delivery.validation is not None:
            log.info("webhook.validated")
            return JSONResponse({"validationResponse": delivery.validation})
        return Response()

    return Starlette(routes=[Route(PATH, deliver, methods=["POST"])])


def _bots_to_notify(bots: Sequence[Bot], thread: ThreadId, *, has_changed: bool) -> Sequence[Bot]:
    """Return the bots to notify of a thread: all that may be in it.

    A message in a thread of some bots is no reason for the others to list their threads.
    """
    inside = [bot for bot in bots if bot.watcher.is_in(thread)]
    return bots if has_changed or not inside else inside


def _keys(request: Request) -> list[bytes]:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [given.encode() for given in [*bearer, *request.query_params.getlist("key")]]


async def _body(request: Request) -> bytes | None:
    """Read the body; return None if it is larger than any delivery."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
