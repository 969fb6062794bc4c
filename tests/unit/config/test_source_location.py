import pytest

from chatbot.config.source_location import SourceLocation, SourceText, printable, shows_secret


def excerpt(text: str, column: int, width: int = 1) -> str:
    return SourceLocation(SourceText.of("f", text), 1, column, width).excerpt()


def test_the_caret_is_below_the_wrong_value() -> None:
    assert excerpt("poll: {interval: 1 sec}", 18, 5) == (
        "    1 | poll: {interval: 1 sec}\n"
        "      |                  ^^^^^"
    )  # fmt: skip


def test_wide_characters_and_tabs_do_not_move_the_caret() -> None:
    assert excerpt("名:\tx", 4) == "    1 | 名: x\n      |     ^"


def test_control_characters_of_the_file_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in excerpt("name: \x1b[31mred", 7, 8)
    assert printable("a\x1bb\x07\u202e") == "a\\x1bb\\x07\\u202e"


def test_keys_and_passwords_are_masked_and_the_caret_stays_true() -> None:
    line = "service: endpoint=https://x;accesskey=SECRET==;y"

    shown = excerpt(line, 48)

    assert shown == (
        "    1 | service: endpoint=https://x;accesskey=********;y\n"
        "      |                                                ^"
    )
    assert "hunter2" not in excerpt("store: postgresql://bot:hunter2@host/db", 1)
    assert "hunter2" not in excerpt("url: https://tokens.example/?code=hunter2", 1)
    assert "hunter2" not in excerpt("{authorization: Bearer hunter2, url: x}", 1)
    assert "hunter2" not in excerpt("event_grid: {listen: 8090, key: hunter2}", 1)
    assert "hunter2" not in excerpt("settings: {model: m, api_key: hunter2, timeout: x}", 1)
    assert "hunter2" not in excerpt("api_key: [hunter2]", 1)
    assert "hunter2" not in excerpt("token:hunter2", 1)
    assert "hunter2" not in excerpt('{"key":"hunter2"}', 1)
    assert "hunter2" not in excerpt("service: {endpoint: https://x, accesskey: hunter2}", 1)
    assert "hunter2" not in excerpt("authorisation: Bearer hunter2", 1)
    assert "A" * 86 not in excerpt(f"service: {'A' * 86}==", 1)
    assert "plugins.echo" in excerpt("monkeys: 3, plugins: [plugins.echo]", 1)
    assert "https://localhost:8443, token: !secret env:T" in excerpt(
        "url: https://localhost:8443, token: !secret env:T", 1
    )


def test_of_a_very_long_line_the_part_around_the_place_is_shown() -> None:
    shown = excerpt("a" * 1000 + "HERE" + "b" * 1000, 1001, 4)

    line, caret = shown.splitlines()
    assert line[caret.index("^") : caret.index("^") + 4] == "HERE"
    assert len(line) < 160


def test_a_secret_cut_by_the_edge_of_a_long_line_stays_masked() -> None:
    line = "x" * 200 + "accesskey=" + "S" * 300 + " end"

    assert "S" not in excerpt(line, 512)


def test_a_place_beyond_the_file_has_no_excerpt() -> None:
    assert SourceLocation(SourceText.of("f", ""), 1, 1).excerpt() == ""


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("service: endpoint=https://x/;accesskey=c2VjcmV0", True),
        ("service: endpoint=https://x/;accesskey=${KEY}", False),
        ("service: ${ACS_CONNECTION_STRING}\nurl: http://127.0.0.1:8080/", False),
        ("store: postgresql://bot:hunter2@host/db", True),
        ("token: !secret env:TOKEN", False),
        ("url: https://x/?code=hunter2", True),
    ],
)
def test_a_secret_is_distinguished_from_a_variable(text: str, is_shown: bool) -> None:
    assert shows_secret(text) is is_shown
