"""Tokens are minted by one caller at a time, ahead of expiry, and kept while nothing better is to be had."""

from __future__ import annotations

import base64
import json

import anyio
import pytest
from azure.core.credentials import AccessToken
from structlog.testing import capture_logs

from chatbot.errors import ConfigError, ServiceError, Unauthorized, Unreachable
from chatbot.service.credentials import RETRY_SECONDS, RenewingTokens, StaticToken

HOUR = 3600


class Mint:
    """Mints "t1", "t2", … that live an hour; can be told to fail, or to wait at the gate."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.calls = 0
        self.running = 0
        self.lifetime = HOUR
        self.failure: ServiceError | None = None
        self.gate: anyio.Event | None = None
        self.tokens = RenewingTokens(self, name="8:acs:bot", clock=lambda: self.now)

    async def __call__(self) -> AccessToken:
        self.calls += 1
        self.running += 1
        assert self.running == 1, "two callers mint at once"
        try:
            number = self.calls
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            return AccessToken(f"t{number}", int(self.now) + self.lifetime)
        finally:
            self.running -= 1

    async def get(self) -> str:
        return (await self.tokens.get_token()).token


@pytest.fixture
def mint() -> Mint:
    return Mint()


async def test_a_token_serves_until_shortly_before_its_expiry(mint: Mint) -> None:
    first = [await mint.get(), await mint.get()]
    mint.now += HOUR - 361
    still = await mint.get()
    mint.now += 2
    renewed = await mint.get()

    assert [*first, still, renewed] == ["t1", "t1", "t1", "t2"]


async def test_a_long_lived_token_is_renewed_ten_minutes_ahead(mint: Mint) -> None:
    mint.lifetime = 24 * HOUR
    await mint.get()
    mint.now += 24 * HOUR - 601
    before = await mint.get()
    mint.now += 2

    assert (before, await mint.get()) == ("t1", "t2")


async def test_callers_who_meet_an_expired_token_share_one_minting(mint: Mint) -> None:
    await mint.get()
    mint.now += 2 * HOUR
    mint.gate = anyio.Event()
    got: list[str] = []

    async def ask() -> None:
        got.append(await mint.get())

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        mint.gate.set()

    assert got == ["t2"] * 5
    assert mint.calls == 2


async def test_while_one_caller_renews_ahead_others_go_on_with_the_old_token(mint: Mint) -> None:
    await mint.get()
    mint.now += HOUR - 60
    mint.gate = anyio.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(mint.get)
        await anyio.wait_all_tasks_blocked()
        meanwhile = await mint.get()
        mint.gate.set()

    assert meanwhile == "t1"
    assert await mint.get() == "t2"


async def test_a_failed_renewal_keeps_the_valid_token_and_is_logged_once(mint: Mint) -> None:
    await mint.get()
    mint.now += HOUR - 60
    mint.failure = Unreachable("identity is down")

    with capture_logs() as logs:
        got = []
        for _ in range(4):
            got.append(await mint.get())
            mint.now += RETRY_SECONDS
        mint.failure = None
        got.append(await mint.get())

    assert got == ["t1"] * 4 + ["t6"]
    assert [log["event"] for log in logs] == ["token.renewal_failed", "token.renewed"]


async def test_after_a_failed_renewal_the_next_one_waits_a_little(mint: Mint) -> None:
    await mint.get()
    mint.now += HOUR - 60
    mint.failure = Unreachable("identity is down")
    for _ in range(10):
        await mint.get()

    assert mint.calls == 2


async def test_without_a_valid_token_all_who_wait_share_one_failure(mint: Mint) -> None:
    mint.failure, mint.gate = Unreachable("identity is down"), anyio.Event()
    failures: list[ServiceError] = []

    async def ask() -> None:
        try:
            await mint.get()
        except ServiceError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        mint.gate.set()

    assert [str(error) for error in failures] == ["identity is down"] * 5
    assert len(set(map(id, failures))) == 5
    assert mint.calls == 1


async def test_it_recovers_by_itself(mint: Mint) -> None:
    mint.failure = Unreachable("identity is down")
    with pytest.raises(Unreachable):
        await mint.get()
    mint.failure = None
    mint.now += RETRY_SECONDS

    assert await mint.get() == "t2"


async def test_callers_whose_token_was_refused_share_one_renewal(mint: Mint) -> None:
    old = await mint.get()

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(mint.tokens.renew, old)

    assert (await mint.get(), mint.calls) == ("t2", 2)


async def test_a_refusal_of_a_token_that_is_gone_already_renews_nothing(mint: Mint) -> None:
    old = await mint.get()
    await mint.tokens.renew(old)

    await mint.tokens.renew(old)

    assert mint.calls == 2


async def test_a_renewal_asked_for_outright_is_done_in_any_case(mint: Mint) -> None:
    await mint.get()
    mint.failure = Unreachable("identity is down")
    with pytest.raises(Unreachable):
        await mint.tokens.renew()
    mint.failure = None

    await mint.tokens.renew()

    assert await mint.get() == "t3"


async def test_a_caller_who_is_cancelled_while_minting_leaves_it_to_the_next(mint: Mint) -> None:
    mint.gate = anyio.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(mint.get)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    mint.gate.set()

    assert await mint.get() == "t2"


async def test_a_clock_ahead_of_the_service_s_does_not_mint_for_every_call(mint: Mint) -> None:
    mint.lifetime = -HOUR

    got = [await mint.get() for _ in range(5)]

    assert got == ["t1"] * 5


async def test_a_closed_source_mints_no_more(mint: Mint) -> None:
    await mint.get()
    await mint.tokens.close()

    with pytest.raises(Unauthorized, match="closed"):
        await mint.get()
    assert mint.calls == 1


async def test_its_repr_shows_no_token(mint: Mint) -> None:
    token = await mint.get()

    assert token not in repr(mint.tokens)


def jwt(**claims: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, 1)
    )


async def test_a_static_token_is_given_out_until_it_expires() -> None:
    now = [1000.0]
    source = StaticToken(jwt(exp=2000), clock=lambda: now[0])

    token = await source.get_token()
    now[0] = 2000.0

    assert token.expires_on == 2000
    with pytest.raises(Unauthorized, match="expired at 1970-01-01 00:33:20Z and cannot be renewed"):
        await source.get_token()


async def test_a_static_token_cannot_be_renewed() -> None:
    with pytest.raises(Unauthorized, match="configure a new one"):
        await StaticToken(jwt(exp=2000)).renew("t")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", jwt(), jwt(exp="never"), jwt(exp=1e400)])
async def test_a_token_that_does_not_say_when_it_expires_is_used_as_it_is(token: str) -> None:
    assert (await StaticToken(f" {token}\n").get_token()).token == token


@pytest.mark.parametrize("token", ["", "  ", "two words", "évil", "a\r\nX-Header: 1"])
def test_a_token_with_characters_that_a_header_cannot_hold_is_refused(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StaticToken(token)

    assert "words" not in str(caught.value)


def test_a_static_token_s_repr_shows_no_token() -> None:
    assert jwt(exp=2000) not in repr(StaticToken(jwt(exp=2000)))
