from datetime import timedelta
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from chatbot.actions import APOLOGY
from chatbot.config import Config, load_config
from chatbot.errors import ConfigError

KEY = "c2VjcmV0IGtleQ=="
AZURE = f"endpoint=https://my.communication.azure.com/;accesskey={KEY}"
SMALL = """\
version: 1
service: ${ACS_CONNECTION_STRING:-emulator}
bots:
  echo:
    plugins: [plugins.echo]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that relative names of files mean."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, **environ: str) -> Config:
    Path("bots.yaml").write_text(text)
    return load_config(Path("bots.yaml"), environ)


def refusal(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    return list(caught.value.problems)


def first_lines(problems: list[str]) -> list[str]:
    return [problem.splitlines()[0] for problem in problems]


def test_a_small_file_is_completed_with_defaults(folder: Path) -> None:
    config = load(SMALL)

    assert config.uses_emulator
    assert config.directory == folder
    assert config.store.get_secret_value() == "sqlite:///chatbot.db"
    assert config.drain_timeout == timedelta(seconds=10)
    assert config.retention == timedelta(days=30)
    assert (config.log.format, config.log.level) == ("auto", "info")
    bot = config.bots["echo"]
    assert (bot.threads, bot.history, bot.ack, bot.display_name) == ("all", "none", "handled", None)
    assert (bot.poll.interval, bot.poll.idle) == (timedelta(milliseconds=300), timedelta(seconds=30))
    assert [(plugin.module, dict(plugin.settings)) for plugin in bot.plugins] == [("plugins.echo", {})]


def test_a_full_file_is_understood(folder: Path) -> None:
    config = load(
        """
version: 1
service: emulator
store: sqlite:///memory/bots.db
ca_file: our-ca.pem
x-poll: &poll {interval: 500ms, idle: 1m}
bots:
  helpdesk:
    display_name: Help desk
    threads: ["19:abc@thread.v2"]
    history: 2h
    plugins:
      - plugins.help
      - module: plugins.faq
        settings: {language: fr, depth: 3}
    ack: received
    poll: *poll
    admins: ["8:acs:ann"]
    allow: ["8:acs:bob", "8:orgid:cem"]
    rate_limit: {messages: 5, per: 10s}
log: {format: json, level: debug}
drain_timeout: 2s
emulator: {data: world.db, port: 8443}
"""
    )

    bot = config.bots["helpdesk"]
    assert (bot.display_name, bot.threads, bot.ack) == ("Help desk", ("19:abc@thread.v2",), "received")
    assert bot.history == timedelta(hours=2)
    assert bot.plugins[1].settings == {"language": "fr", "depth": 3}
    assert bot.poll.interval == timedelta(milliseconds=500)
    assert (bot.admins, bot.allow) == (("8:acs:ann",), ("8:acs:bob", "8:orgid:cem"))
    assert bot.rate_limit is not None
    assert (bot.rate_limit.messages, bot.rate_limit.per) == (5, timedelta(seconds=10))
    assert config.ca_file == "our-ca.pem"
    assert (config.emulator.data, config.emulator.port) == ("world.db", 8443)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("    threads: [x]\n", "bots.echo.threads: 'x' is not a thread id"),
        ("    rate_limit: {messages: 1, per: 0s}\n", "bots.echo.rate_limit.per: 0s counts nothing (try 1m)"),
        ("log: {bots: {ecco: debug}}\n", "log.bots.ecco: there is no bot 'ecco'; there are: echo"),
    ],
)
def test_what_can_mean_nothing_is_refused(folder: Path, more: str, problem: str) -> None:
    problems = refusal(f"version: 1\nservice: emulator\nbots:\n  echo:\n    plugins: [plugins.echo]\n{more}")

    assert problem in "".join(problems)


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ('version: 1\nservice: "emulator\nbots: {}\n', 2, 'write " at the end of the text'),
        ("version: 1\nservice: 'emulator\nbots: {}\n", 2, "write ' at the end of the text"),
        (
            "version: 1\nbots:\n  echo: {plugins: [plugins.echo\n  other: {plugins: [x]}\n",
            4,
            "write ] where the [ of line 3 ends",
        ),
        ("version: 1\nbots:\n  echo: {plugins: [plugins.echo]\n", 4, "write } where the { of line 3 ends"),
    ],
)
def test_a_quote_or_bracket_that_is_not_closed_is_named_where_it_opens(
    folder: Path, text: str, line: int, remedy: str
) -> None:
    (problem,) = refusal(text)

    assert f"bots.yaml:{line}:" in problem
    assert remedy in problem


def test_the_same_file_runs_against_azure_when_the_variable_is_set(folder: Path) -> None:
    config = load(SMALL, ACS_CONNECTION_STRING=AZURE)

    assert not config.uses_emulator
    assert config.service.get_secret_value() == AZURE


def test_secrets_are_masked_wherever_the_settings_are_shown(folder: Path) -> None:
    config = load(SMALL + "store: !secret env:STORE\n", ACS_CONNECTION_STRING=AZURE, STORE="sqlite:///x.db")

    assert KEY not in repr(config)
    assert KEY not in config.model_dump_json()
    assert "x.db" not in repr(config)


def test_all_mistakes_are_reported_at_once_in_order_with_place_line_and_caret(folder: Path) -> None:
    problems = refusal(
        """\
version: 2
servce: emulator
bots:
  helpdesk:
    display_name: 42
    threads: [1]
    history: yesterday
    plugin: [plugins.help]
    poll: {interval: 1 sec, idle: 30s}
    ack: handle
  echo:
    plugins: [plugins.echo, {module: 7, setings: {}}, 8]
    display_name: ${NOPE}
    poll: {interval: 2m, idle: 100ms}
  "bad name!": {plugins: plugins.echo}
log: {level: warn}
drain_timeout: 5
emulator: {port: 99999}
"""
    )

    assert first_lines(problems) == snapshot(
        [
            "bots.yaml:1:10: version: this version of the format is not supported; write version: 1",
            "bots.yaml:2:1: servce: unknown key (did you mean service?)",
            'bots.yaml:5:19: bots.helpdesk.display_name: 42 is not text (put it in quotes: "42")',
            'bots.yaml:6:14: bots.helpdesk.threads: this must be all, or a list of thread ids ("19:…@thread.v2")',
            'bots.yaml:7:14: bots.helpdesk.history: "yesterday" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d); or write none, or all',  # noqa: E501
            "bots.yaml:8:5: bots.helpdesk.plugin: unknown key (did you mean plugins?)",
            'bots.yaml:9:22: bots.helpdesk.poll.interval: "1 sec" is not a duration (try 1s)',
            'bots.yaml:10:10: bots.helpdesk.ack: "handle" is not one of received, handled, manual (did you mean handled?)',  # noqa: E501
            'bots.yaml:12:38: bots.echo.plugins[1].module: 7 is not text (put it in quotes: "7")',
            "bots.yaml:12:41: bots.echo.plugins[1].setings: unknown key (did you mean settings?)",
            "bots.yaml:12:55: bots.echo.plugins[2]: this must be an import path (plugins.echo), or a mapping with module and settings",  # noqa: E501
            "bots.yaml:13:19: bots.echo.display_name: the environment variable NOPE is not set (set it, or give a default: ${NOPE:-default})",  # noqa: E501
            "bots.yaml:14:11: bots.echo.poll: idle (100ms) must not be shorter than interval (2m)",
            'bots.yaml:15:3: bots.bad name!: "bad name!" is not a valid name of a bot: use letters, digits, - and _ (people see display_name)',  # noqa: E501
            'bots.yaml:15:26: bots.bad name!.plugins: "plugins.echo" is not a list; write each item on its own line, after a dash',  # noqa: E501
            'bots.yaml:16:14: log.level: "warn" is not one of debug, info, warning, error (did you mean warning?)',
            "bots.yaml:17:16: drain_timeout: 5 is not a duration (try 5s)",
            "bots.yaml:18:18: emulator.port: 99999 is too large; at most 65535",
        ]
    )
    assert problems[6].splitlines() == [
        'bots.yaml:9:22: bots.helpdesk.poll.interval: "1 sec" is not a duration (try 1s)',
        "    9 |     poll: {interval: 1 sec, idle: 30s}",
        "      |                      ^^^^^",
    ]


def test_a_bad_connection_string_is_refused_without_showing_it(folder: Path) -> None:
    problems = refusal(SMALL, ACS_CONNECTION_STRING=f"accesskey={KEY}")

    assert first_lines(problems) == [
        "bots.yaml:2:10: service: the connection string has no endpoint=…; copy it from the resource's page in the"
        " Azure portal, it looks like endpoint=https://NAME.communication.azure.com/;accesskey=KEY; or write emulator"
    ]
    assert KEY not in "".join(problems)


def test_a_secret_is_refused_where_people_would_see_it(folder: Path) -> None:
    text = SMALL.replace("    plugins:", "    display_name: !secret env:NAME\n    plugins:")

    assert first_lines(refusal(text, NAME="hidden")) == [
        "bots.yaml:5:19: bots.echo.display_name: a secret is not allowed here, because this value is shown to people"
    ]


@pytest.mark.parametrize(
    ("port", "sentence"),
    [("${PORT}", None), ("true", "true is not a whole number"), ("http", '"http" is not a whole number')],
)
def test_a_number_may_come_from_a_variable(folder: Path, port: str, sentence: str | None) -> None:
    text = f"{SMALL}emulator:\n  port: {port}\n"

    if sentence is None:
        assert load(text, PORT="8443").emulator.port == 8443
    else:
        assert first_lines(refusal(text)) == [f"bots.yaml:7:9: emulator.port: {sentence}"]


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("chatbot.db", "bots.yaml:6:8: store: 'chatbot.db' is not a store URL: expected "),
        ("redis://bot:hunter2@host/db", "bots.yaml:6:8: store: 'redis:…' is not a supported store: expected "),
        ("postgres://bot:hunter2@host", "bots.yaml:6:8: store: the postgresql:// URL of the store cannot be used: it "),
    ],
)
def test_a_store_that_cannot_be_is_refused_without_its_password(folder: Path, store: str, sentence: str) -> None:
    (problem,) = refusal(f"{SMALL}store: {store}\n")

    assert problem.startswith(sentence)
    assert "hunter2" not in problem


def test_a_secret_that_is_no_store_is_not_shown(folder: Path) -> None:
    (problem,) = refusal(f"{SMALL}store: !secret env:STORE\nretention: !secret env:STORE\n", STORE="hunter2")[:1]

    assert "what this secret holds is not a store URL: expected sqlite:///FILE" in problem
    assert "hunter2" not in problem


def test_a_file_in_the_place_of_an_import_path_is_reported_once(folder: Path) -> None:
    assert first_lines(refusal("version: 1\nservice: emulator\nbots:\n  a:\n    plugins: [plugins/echo.py]\n")) == [
        'bots.yaml:5:15: bots.a.plugins[0]: "plugins/echo.py" is not an import path (like plugins.echo for'
        " plugins/echo.py)"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "bots.yaml:1:1: this file is empty; it needs version, service and bots"),
        ("# nothing\n", "bots.yaml:1:1: this file is empty; it needs version, service and bots"),
        ("- a\n", "bots.yaml:1:1: a list is not a mapping; write its keys below it, indented"),
        (
            "version: 1\nservice: emulator\nbots: {}\n",
            "bots.yaml:3:7: bots: this is empty; it needs at least one",
        ),
        ("version: 1\nservice: emulator\n", "bots.yaml:1:1: bots: this is missing"),
    ],
)
def test_a_file_without_bots_is_refused(folder: Path, text: str, sentence: str) -> None:
    assert first_lines(refusal(text)) == [sentence]


def test_a_missing_file_is_refused_with_the_remedy(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^nope\.yaml: there is no such file; pass the path of your configuration"):
        load_config(Path("nope.yaml"), {})


def test_a_directory_and_a_binary_file_are_no_configuration(folder: Path) -> None:
    (folder / "binary.yaml").write_bytes(b"a: 1\nb: \xff\xfe")

    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_config(folder, {})
    with pytest.raises(ConfigError, match=r"binary\.yaml:2: this is not UTF-8 text"):
        load_config(Path("binary.yaml"), {})


def test_a_later_finding_can_be_reported_with_its_line(folder: Path) -> None:
    config = load(SMALL)

    problem = config.problem(("bots", "echo", "plugins", 0), "it does not import")

    assert problem.splitlines() == [
        "bots.yaml:5:15: bots.echo.plugins[0]: it does not import",
        "    5 |     plugins: [plugins.echo]",
        "      |               ^^^^^^^^^^^^",
    ]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("10m", "10m is too short: bots could not edit recent messages (at least 1h)"),
        ("0s", "0s is too short: bots could not edit recent messages (at least 1h)"),
        ("a month", '"a month" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
    ],
)
def test_a_retention_that_would_break_edits_is_refused(folder: Path, written: str, problem: str) -> None:
    problems = refusal(f"version: 1\nservice: emulator\nbots: {{a: {{plugins: [x]}}}}\nretention: {written}\n")

    assert first_lines(problems) == [f"bots.yaml:4:12: retention: {problem}"]


def test_a_key_of_the_webhook_that_can_be_guessed_is_refused_and_not_shown(folder: Path) -> None:
    problems = refusal(f"{SMALL}event_grid: {{listen: 8090, key: letmein}}\n")

    (problem,) = first_lines(problems)
    assert problem.startswith("bots.yaml:6:33: event_grid.key: this key is too easy to guess (at least 16 characters)")
    assert "letmein" not in str(problems)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("admins: ann", 'bots.echo.admins: this must be a list of user ids ("8:acs:…")'),
        ("allow: [Ann]", 'bots.echo.allow: this must be a list of user ids ("8:acs:…")'),
        ("allow: []", 'bots.echo.allow: this must be a list of user ids ("8:acs:…")'),
        ("rate_limit: {messages: 0}", "bots.echo.rate_limit.messages: "),
        ("rate_limit: 5", "bots.echo.rate_limit: "),
    ],
)
def test_a_wrong_access_setting_is_refused_with_its_place(setting: str, complaint: str, folder: Path) -> None:
    (problem,) = first_lines(refusal(f"{SMALL}    {setting}\n"))

    assert problem.startswith("bots.yaml:6:")
    assert complaint in problem


@pytest.mark.parametrize(
    ("written", "apology"),
    [("", APOLOGY), ("apology: Oh dear.", "Oh dear."), ("apology: off", None), ("apology: 'Off'", None)],
)
def test_the_apology_has_a_default_and_can_be_turned_off(folder: Path, written: str, apology: str | None) -> None:
    config = load(f"version: 1\nservice: emulator\nbots:\n  echo:\n    plugins: [plugins.echo]\n    {written}\n")

    assert config.bots["echo"].apology == apology
