import os
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chatbot.config.document import Document, read_document, read_files
from chatbot.config.file import MAX_SECRET_BYTES, UnreadableError

ENVIRON = {"TOKEN": "s3cret", "NAME": "Ann"}


def read(text: str, directory: Path = Path()) -> Document:
    return read_document("f.yaml", text, ENVIRON, directory)


def data(text: str) -> Any:
    document = read(text)
    assert document.problems == []
    return document.data


def problems(text: str) -> list[str]:
    return [str(problem).splitlines()[0] for problem in read(text).problems]


def test_words_that_older_yaml_takes_for_booleans_and_dates_stay_text() -> None:
    assert data("[no, on, Yes, 2026-11-23, 1:30, 0x10, ~, true, 7, -1.5, 1e3, '8', none]") == [
        "no", "on", "Yes", "2026-11-23", "1:30", "0x10", None, True, 7, -1.5, 1000.0, "8", "none",
    ]  # fmt: skip


def test_every_value_and_key_knows_its_place() -> None:
    document = read("a:\n  - x\n  - {b: long}\n")

    assert str(document.place(("a", 1, "b"))) == "f.yaml:3:9"
    assert document.place(("a", 1, "b")).width == 4
    assert str(document.place(("a", 1, "b"), of_key=True)) == "f.yaml:3:6"


def test_what_is_missing_is_placed_where_it_would_belong() -> None:
    document = read("bots:\n  echo: {}\n")

    assert str(document.place(("bots", "echo", "plugins"))) == "f.yaml:2:3"
    assert str(document.place(("version",))) == "f.yaml:1:1"


def test_variables_are_replaced_in_values_and_never_make_structure() -> None:
    document = read_document("f", "a: ${X}\n${X}: b", {"X": "{b: [1]}"}, Path())

    assert document.data == {"a": "{b: [1]}", "${X}": "b"}


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    assert data("d: &d {x: 1, y: 2}\ne: {y: 3, <<: *d}\nf: {<<: [*d, {z: 4}], x: 5}") == {
        "d": {"x": 1, "y": 2},
        "e": {"x": 1, "y": 3},
        "f": {"x": 5, "y": 2, "z": 4},
    }


def test_a_key_given_twice_is_refused_with_both_places() -> None:
    assert problems("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n") == [
        "f.yaml:4:3: b.c: this key is duplicated (first in line 3); remove one",
        "f.yaml:5:1: a: this key is duplicated (first in line 1); remove one",
    ]


def test_aliases_that_multiply_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )

    assert problems(bomb) == ["f.yaml:1:1: aliases expand to more than 20,000 values; use fewer"]


def test_an_alias_that_contains_itself_is_refused() -> None:
    assert problems("a: &a [*a]") == ["f.yaml:1:4: a[0]: this alias contains itself"]


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, "[" * 2_000])
def test_what_is_nested_beyond_measure_is_refused(text: str) -> None:
    assert "nested too deeply" in problems(text)[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1\nb: 2", "f.yaml:2:2: this is not YAML: "),
        ("a: b: c", "f.yaml:1:5: this is not YAML: mapping values are not allowed here"),
        (
            "a:\n\tb: 1",
            "f.yaml:2:1: this is not YAML: found character '\\t' that cannot start any token; indent with",
        ),
        ("a: *nowhere", "f.yaml:1:4: this is not YAML: found undefined alias 'nowhere'"),
        ("a: 1\n--- \nb: 2", "f.yaml:2:1: this is not YAML: but found another document"),
        ("ok: 1\na: {b: ${TOKEN}}", 'inside { } and [ ] write "${…}" in quotes'),
        ("a: 1\nb: \x07", "f.yaml:2:1: a character that YAML does not allow, U+0007; remove it"),
        (
            "a: !!python/object:os.system x",
            "f.yaml:1:4: a: unknown tag tag:yaml.org,2002:python/object:os.system",
        ),
        (
            "a: !!python/tuple [x]",
            "f.yaml:1:4: a: unknown tag tag:yaml.org,2002:python/tuple; only !secret is supported",
        ),
        ("a: !foo {b: c}", "f.yaml:1:4: a: unknown tag !foo; only !secret is supported"),
        ("? [a, b]\n: c", "f.yaml:1:3: a key must be a plain word"),
        ("<<: 5", "f.yaml:1:5: << must be followed by an alias of a mapping (<<: *name)"),
        ("a: ${NONE}", "f.yaml:1:4: a: the environment variable NONE is not set"),
    ],
)
def test_what_is_no_usable_yaml_is_refused_with_its_place(text: str, sentence: str) -> None:
    assert sentence in problems(text)[0]


def test_secrets_come_from_the_environment_or_a_file_and_are_masked(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from file\n")

    document = read("[!secret env:TOKEN, !secret file:key]", tmp_path)

    assert document.problems == []
    assert [secret.get_secret_value() for secret in document.data] == ["s3cret", "from file"]
    assert all(isinstance(secret, SecretStr) for secret in document.data)
    assert "s3cret" not in repr(document)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("!secret env:NOPE", "the environment variable NOPE is not set"),
        ("!secret file:nope", "cannot be read: there is no such file"),
        ("!secret s3cret", "write a secret as !secret env:NAME or !secret file:PATH"),
    ],
)
def test_a_secret_that_cannot_be_had_is_a_problem(text: str, sentence: str) -> None:
    assert sentence in problems(text)[0]


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"sk-1\r\n", "sk-1"),
        (b"\xef\xbb\xbfsk-1\r\n", "sk-1"),
        (b" \tsk-1 \n\n", "sk-1"),
        ("\ufeffsk-1\r\n".encode("utf-16-le"), "sk-1"),
        ("\ufeffsk-1\r\n".encode("utf-16-be"), "sk-1"),
        (b"\xef\xbb\xbf-----BEGIN-----\n  line\n-----END-----\n", "-----BEGIN-----\n  line\n-----END-----"),
    ],
)
def test_a_secret_file_is_read_without_its_mark_and_line_end(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "key").write_bytes(content)

    document = read("!secret file:key", tmp_path)

    assert document.problems == []
    assert document.data.get_secret_value() == secret


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "this is empty"),
        (b"\xef\xbb\xbf \r\n", "this is empty"),
        (b"\xff\xfe", "this is empty"),
        (b"\xfe\xff\xd8", "this is not UTF-8 text"),
        (b"s\0k\0", "this is not UTF-8 text"),
        (b"s3cret\xff", "this is not UTF-8 text"),
        (b"x" * (MAX_SECRET_BYTES + 1), "this file is larger than 65,536 bytes; name the right file"),
    ],
)
def test_a_secret_file_that_holds_no_secret_is_refused_without_its_words(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "key").write_bytes(content)

    (problem,) = read("!secret file:key", tmp_path).problems

    assert problem.text.endswith(f"the secret file {tmp_path / 'key'} cannot be read: {reason}")


def test_an_empty_variable_is_no_secret() -> None:
    assert "the environment variable BLANK is empty" in str(
        read_document("f.yaml", "!secret env:BLANK", {"BLANK": " \t"}, Path()).problems[0]
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names, and no /dev, on Windows")
@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/tty", "socket", "linked pipe"])
def test_only_a_regular_file_is_opened_for_a_secret_or_an_include(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "linked pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))

        (secret,) = read(f"!secret 'file:{name}'", tmp_path).problems
        (tmp_path / "f.yaml").write_text(f"include: ['{name}']\n")
        included = read_files(tmp_path / "f.yaml", {}).problems
        with pytest.raises(UnreadableError, match="this is not a regular file"):
            read_files(tmp_path / name, {})

    assert secret.text.endswith("this is not a regular file")
    assert included[0].text.endswith("this is not a regular file")


@pytest.mark.parametrize("name", [r"a\0b", r"a\ud800b", r"*\0.yaml", "~nobody-has-this-name/x", "circle", "long" * 99])
def test_a_name_that_no_file_can_have_is_a_problem_and_no_crash(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "f.yaml").write_text(f'include: ["{name}"]\nservice: !secret "file:{name}"\n')

    problems = [str(problem) for problem in read_files(tmp_path / "f.yaml", {}).problems]

    assert len(problems) == 2
    assert all(problem.startswith(f"{tmp_path}/f.yaml:") for problem in problems)
