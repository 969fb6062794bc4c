"""A bot whose store is lost, or that was renamed, does not silently become somebody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.config import Config, load_config
from chatbot.model import UserId
from chatbot.runtime.bot_users import lost_identities
from chatbot.stores.records import BotRecord
from tests.cli.conftest import Run
from tests.cli.resource import Azure

PARROT = "  parrot: {plugins: [parrot]}"
MACAW = "  macaw: {plugins: [parrot]}"

Chatbot = Callable[..., tuple[int, str]]


@pytest.fixture
def chatbot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chatbot:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = main(list(words))
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def start_and_stop(run: Run, directory: Path, bot: str, *options: str) -> str:
    bots = run(directory, *options)
    bots.event("daemon.started")
    user = bots.event("bot.started", bot=bot)["user_id"]
    assert bots.stop() == 0
    return str(user)


def test_every_command_refuses_a_lost_store_until_the_user_is_adopted(
    resource: Azure, tmp_path: Path, run: Run, chatbot: Chatbot
) -> None:
    resource.bots_yaml(tmp_path, bots=PARROT)
    user = start_and_stop(run, tmp_path, "parrot")
    for file in tmp_path.glob("chatbot.db*"):
        file.unlink()

    refused = run(tmp_path)
    assert refused.ended() == 78
    sentence = f"the store does not know the bot parrot, which was the user {user}"
    assert sentence in "".join(refused.lines)
    assert "chatbot identity adopt parrot" in "".join(refused.lines)
    for command in ("check", "doctor"):
        code, shown = chatbot(command)
        assert (code != 0, sentence in shown.replace("\n", " ")) == (True, True), shown
    assert chatbot("identity", "adopt", "parrot")[1].startswith(f"parrot goes on as {user} when it is started")
    assert chatbot("check")[0] == 0
    assert start_and_stop(run, tmp_path, "parrot") == user


@pytest.mark.chaos  # three starts
def test_new_users_are_allowed_on_request(resource: Azure, tmp_path: Path, run: Run, chatbot: Chatbot) -> None:
    file = resource.bots_yaml(tmp_path, bots=PARROT)
    user = start_and_stop(run, tmp_path, "parrot")
    (tmp_path / "chatbot.db").unlink()

    new = start_and_stop(run, tmp_path, "parrot", "--allow-new-users")

    assert new != user
    (tmp_path / "chatbot.db").unlink()
    file.write_text(f"{file.read_text()}allow_new_users: true\n")
    assert chatbot("check")[0] == 0
    assert start_and_stop(run, tmp_path, "parrot") not in (user, new)


def test_a_renamed_bot_continues_as_the_same_user_while_the_daemon_runs(
    resource: Azure, tmp_path: Path, run: Run, chatbot: Chatbot
) -> None:
    resource.bots_yaml(tmp_path, bots=PARROT)
    bots = run(tmp_path)
    bots.event("daemon.started")
    user = bots.event("bot.started", bot="parrot")["user_id"]
    resource.bots_yaml(tmp_path, bots=MACAW)

    code, refused = chatbot("reload")
    assert code == 78
    assert f"the store does not know the bot macaw, but one that bots.yaml lacks: parrot ({user})" in refused
    assert "chatbot identity adopt macaw --from parrot" in refused
    assert "macaw" in chatbot("check")[1]
    assert chatbot("identity", "adopt", "macaw", "--from", "parrot")[0] == 0
    assert chatbot("reload")[0] == 0
    assert bots.event("bot.started", bot="macaw")["user_id"] == user

    (running,) = json.loads(chatbot("status", "--format", "json")[1])["bots"]
    assert (running["name"], running["user"]) == ("macaw", user)
    assert bots.stop() == 0


@pytest.mark.chaos  # two starts
def test_a_bot_that_has_another_user_is_replaced_only_on_request(
    resource: Azure, tmp_path: Path, run: Run, chatbot: Chatbot
) -> None:
    resource.bots_yaml(tmp_path, bots=PARROT)
    old = chatbot("identity", "create")[1].strip()
    start_and_stop(run, tmp_path, "parrot")

    assert chatbot("identity", "adopt", "parrot", "--user", old)[0] == 2
    assert chatbot("identity", "adopt", "parrot", "--user", old, "--yes")[0] == 0
    assert start_and_stop(run, tmp_path, "parrot") == old


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nobody"], 2, "names no bot 'nobody'; it names: parrot"),
        (["parrot"], 69, "Nothing tells it: name it with --user, or its old name with --from"),
        (["parrot", "--from", "macaw"], 2, "the store knows no bot 'macaw'; it knows: none"),
        (["parrot", "--from", "macaw", "--user", "8:acs:x"], 2, "give only one of --user and --from"),
    ],
)
def test_a_failed_adoption_is_explained(
    resource: Azure, tmp_path: Path, chatbot: Chatbot, words: list[str], code: int, sentence: str
) -> None:
    resource.bots_yaml(tmp_path, bots=PARROT)

    found, shown = chatbot("identity", "adopt", *words)

    assert found == code
    assert sentence in shown


# ── who was who ───────────────────────────────────────────────────────────────────────────────────────────────


def configured(directory: Path, *bots: str, store: str = "sqlite:///chatbot.db") -> Config:
    lines = "\n".join(f"  {bot}" for bot in bots)
    (directory / "bots.yaml").write_text(
        f'version: 1\nservice: "endpoint=https://r.invalid/;accesskey=bm8="\nstore: "{store}"\nbots:\n{lines}\n'
    )
    return load_config(directory / "bots.yaml", {})


OLD = BotRecord("old", "r", UserId("8:acs:old"), 0)


@pytest.mark.parametrize(
    ("bots", "stored", "noted", "lost"),
    [
        (["new: {plugins: [p]}"], [], {}, {}),
        (["new: {plugins: [p]}"], [OLD], {}, {"new": {"old": OLD.user}}),
        (["new: {plugins: [p]}"], [BotRecord("old", "r", OLD.user, 0, is_retired=True)], {"old": OLD.user}, {}),
        (["new: {plugins: [p]}"], [BotRecord("old", "elsewhere", OLD.user, 0)], {}, {}),
        (["new: {plugins: [p]}"], [], {"old": OLD.user}, {"new": {"old": OLD.user}}),
        (["old: {plugins: [p]}"], [], {"old": OLD.user}, {"old": {"old": OLD.user}}),
        (["old: {plugins: [p]}"], [OLD], {"old": OLD.user}, {}),
        (["old: {plugins: [p]}", "new: {plugins: [p]}"], [OLD], {"old": OLD.user}, {}),
        (["new: {plugins: [p], user: '8:acs:old'}"], [OLD], {"old": OLD.user}, {}),
        (["new: {plugins: [p], user: '8:acs:old'}", "third: {plugins: [p]}"], [OLD], {}, {}),
    ],
)
def test_only_a_bot_that_nobody_was_before_gets_a_new_user(
    tmp_path: Path,
    bots: list[str],
    stored: list[BotRecord],
    noted: dict[str, UserId],
    lost: dict[str, dict[str, UserId]],
) -> None:
    found = lost_identities(configured(tmp_path, *bots), "r", stored, noted)

    assert {one.bot: dict(one.candidates) for one in found} == lost


def test_a_store_in_memory_loses_nothing(tmp_path: Path) -> None:
    config = configured(tmp_path, "old: {plugins: [p]}", store="memory:")

    assert lost_identities(config, "r", [], {"old": OLD.user}) == []
