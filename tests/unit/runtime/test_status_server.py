import socket
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chatbot.config import Config, load_config
from chatbot.errors import StateError
from chatbot.runtime.status_server import StatusServer

PAGES = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("here"))])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def listening_at(folder: Path, listen: str | None) -> Config:
    """A configuration whose pages are served there, or nowhere."""
    server = f"server: {{listen: {listen!r}}}\n" if listen else ""
    text = f"version: 1\nservice: emulator\nbots: {{echo: {{plugins: [echo]}}}}\n{server}"
    await anyio.Path(folder / "bots.yaml").write_text(text)
    return await anyio.to_thread.run_sync(load_config, folder / "bots.yaml", {})


async def is_served(port: int) -> bool:
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return (await stream.receive()).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


async def test_pages_move_also_to_an_address_that_holds_the_old_one_and_end_with_the_block(tmp_path: Path) -> None:
    server, port, other = StatusServer(lambda: PAGES), free_port(), free_port()

    async with server.open(await listening_at(tmp_path, None)):
        seen = [await is_served(port)]
        for listen in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"127.0.0.1:{other}"):
            await server.move(await listening_at(tmp_path, listen))
            seen += [await is_served(port), await is_served(other)]
        await server.move(await listening_at(tmp_path, None))
        seen.append(await is_served(other))
        await server.move(await listening_at(tmp_path, str(port)))
        seen.append(await is_served(port))

    assert seen == [False, True, False, True, False, False, True, False, True]
    assert not await is_served(port)


async def test_pages_stay_where_they_were_when_nobody_can_listen_where_they_shall(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = StatusServer(lambda: PAGES)
        async with server.open(await listening_at(tmp_path, str(port))):
            with pytest.raises(StateError, match=r"bots\.yaml:4:18: server\.listen: .*; free it, or choose another"):
                await server.move(await listening_at(tmp_path, str(taken.getsockname()[1])))

            assert await is_served(port)
