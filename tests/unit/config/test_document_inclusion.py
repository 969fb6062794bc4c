from pathlib import Path

import pytest

from chatbot.cli.config import effective
from chatbot.config import Config, load_config
from chatbot.config.document import MAX_FILES
from chatbot.errors import ConfigError

START = "version: 1\nservice: emulator\n"
ECHO = "bots:\n  echo: {plugins: [plugins.echo]}\n"
DESK = "bots:\n  desk: {plugins: [plugins.help]}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that relative names of files mean."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def load(bots: str, path: str = "bots.yaml", **files: str) -> Config:
    """Load files; in their names __ stands for a slash, and each ends with .yaml."""
    write({path: bots} | {f"{name.replace('__', '/')}.yaml": text for name, text in files.items()})
    return load_config(Path(path), {"SECRET": "s3cret", "PART": "part"})


def refusal(bots: str, **files: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(bots, **files)
    return [problem.splitlines()[0] for problem in caught.value.problems]


def test_bots_of_several_files_run_side_by_side_in_the_order_of_the_files() -> None:
    config = load(
        f"include: conf.d/*.yaml\n{START}bots:\n  own: {{plugins: [plugins.own]}}\n", conf_d__x="", conf__y=""
    )
    write({"conf.d/b.yaml": DESK, "conf.d/a.yaml": ECHO, "conf.d/.hidden.yaml": "nonsense: 1", "conf.d/c.yml": "no: 1"})

    again = load_config(Path("bots.yaml"), {})

    assert list(config.bots) == ["own"]
    assert list(again.bots) == ["echo", "desk", "own"]
    assert again.files == ("bots.yaml", "conf.d/a.yaml", "conf.d/b.yaml")


def test_own_values_go_before_included_ones_and_later_files_before_earlier_ones() -> None:
    config = load(
        f"include: [one.yaml, two.yaml]\n{START}{ECHO}log: {{level: error}}\n",
        one="log: {level: debug, format: json}\nretention: 1d\ndrain_timeout: 1s\n",
        two="log: {level: info}\nretention: 2d\nstore: 'memory:'\n",
    )

    assert (config.log.level, config.log.format) == ("error", "json")
    assert config.retention.days == 2
    assert config.drain_timeout.seconds == 1
    assert config.store.get_secret_value() == "memory:"


def test_service_is_one_thing_and_is_not_put_together_of_two() -> None:
    tokens = "token_endpoint: {url: https://tokens.example/}"
    config = load(
        "version: 1\ninclude: base.yaml\nservice: {endpoint: https://a.communication.azure.com, entra: cli}\n" + ECHO,
        base=f"service: {{endpoint: https://b.communication.azure.com, {tokens}}}\n",
    )

    assert "token_endpoint=None" in repr(config.service)


def test_included_files_may_contain_everything_and_include_others() -> None:
    config = load(
        "version: 1\ninclude: [parts/all.yaml]\nbots:\n",
        parts__all="include: [more/bots.yaml]\nservice: emulator\n",
        parts__more__bots=ECHO,
    )

    assert list(config.bots) == ["echo"]
    assert config.files == ("bots.yaml", "parts/all.yaml", "parts/more/bots.yaml")


def test_names_of_files_start_at_the_file_that_names_them_also_those_of_secrets(folder: Path) -> None:
    write({"secrets/key": "endpoint=https://x.communication.azure.com/;accesskey=c2VjcmV0\n", "deploy/parts/key": "no"})

    config = load(
        f"version: 1\ninclude: [parts/service.yaml, {folder}/absolute.yaml]\n",
        "deploy/bots.yaml",
        deploy__parts__service="service: !secret file:../../secrets/key\n",
        absolute=ECHO,
    )

    assert not config.uses_emulator
    assert config.directory == folder / "deploy"
    assert config.files == ("deploy/bots.yaml", "deploy/parts/service.yaml", f"{folder}/absolute.yaml")


def test_a_file_may_be_chosen_by_a_variable() -> None:
    assert list(load(START + "include: ${PART}.yaml\n", part=ECHO).bots) == ["echo"]


def test_a_file_that_two_include_counts_once() -> None:
    config = load(
        START + "include: [a.yaml, b.yaml]\n", a="include: both.yaml\n", b="include: ./both.yaml\n" + DESK, both=ECHO
    )

    assert list(config.bots) == ["echo", "desk"]


def test_anchors_of_an_included_file_are_its_own() -> None:
    part = "x-poll: &poll {interval: 2s}\nbots:\n  echo: {plugins: [plugins.echo], poll: *poll}\n"

    assert load(START + "include: part.yaml\n", part=part).bots["echo"].poll.interval.seconds == 2


def test_two_bots_of_one_name_are_refused_with_both_places() -> None:
    assert refusal(f"{START}include: [a.yaml, b.yaml]\n{ECHO}", a=ECHO, b=DESK) == [
        "bots.yaml:5:3: bots.echo: a bot of this name exists at a.yaml:2:3; rename or remove one"
    ]
    assert refusal(f"{START}include: [a.yaml, b.yaml]\n", a=ECHO, b=ECHO) == [
        "b.yaml:2:3: bots.echo: a bot of this name exists at a.yaml:2:3; rename or remove one"
    ]


def test_another_version_is_refused_with_both_places() -> None:
    assert refusal(f"{START}include: [a.yaml]\n", a="version: 2\n" + ECHO) == [
        "bots.yaml:1:10: version: a.yaml:1:10 has a different version; write the same in both"
    ]


@pytest.mark.parametrize(
    ("include", "files", "problem"),
    [
        (
            "gone.yaml",
            {},
            "bots.yaml:3:10: include: gone.yaml: there is no such file; name an existing file",
        ),
        ("[a.yaml, gone.yaml]", {"a": ECHO}, "bots.yaml:3:19: include[1]: gone.yaml: there is no such file; "),
        ("bots.yaml", {}, "bots.yaml:3:10: include: circular include: bots.yaml → bots.yaml; remove one"),
        (
            "a.yaml",
            {"a": "include: sub/b.yaml\n", "sub__b": "include: [../a.yaml]\n"},
            "sub/b.yaml:1:11: include[0]: circular include: bots.yaml → a.yaml → sub/b.yaml → sub/../a.yaml; ",
        ),
        ("3", {}, "bots.yaml:3:10: include: this must be a file, or a list of files (conf.d/*.yaml)"),
        ("[3]", {}, "bots.yaml:3:11: include[0]: this must be a file, or a list of files (conf.d/*.yaml)"),
        ("[[a.yaml]]", {}, "bots.yaml:3:11: include[0]: this must be a file, or a list of files (conf.d/*.yaml)"),
        ("''", {}, "bots.yaml:3:10: include: this must be a file, or a list of files (conf.d/*.yaml)"),
        ("!secret env:SECRET", {}, "bots.yaml:3:10: include: this must be a file, or a list of files (conf.d/*.yaml)"),
        ("${NOPE}.yaml", {}, "bots.yaml:3:10: include: the environment variable NOPE is not set"),
        ("a.yaml", {"a": "- 1\n"}, "a.yaml:1:1: this file is not a mapping; write settings such as bots: at its top"),
        ("a.yaml", {"a": "bots: [\n"}, "a.yaml:2:1: this is not YAML: "),
        ("a.yaml", {"a": "bots: 3\n"}, "a.yaml:1:7: bots: 3 is not a mapping; write its keys below it, indented"),
        ("a.yaml", {"a": ECHO + "servce: x\n"}, "a.yaml:3:1: servce: unknown key (did you mean service?)"),
        ("a.yaml", {"a": ECHO + "include: b.yaml\n"}, "a.yaml:3:10: include: b.yaml: there is no such file; "),
    ],
)
def test_what_cannot_be_included_is_refused_where_it_is_named(
    include: str, files: dict[str, str], problem: str
) -> None:
    (found,) = refusal(f"{START}include: {include}\n", **files)

    assert found.startswith(problem)


def test_a_key_that_may_be_in_an_unreadable_included_file_is_not_reported_as_missing() -> None:
    assert refusal("version: 1\ninclude: [a.yaml]\nlog: {level: loud}\n") == [
        "bots.yaml:2:11: include[0]: a.yaml: there is no such file; name an existing file",
        'bots.yaml:3:14: log.level: "loud" is not one of debug, info, warning, error',
    ]


def test_mistakes_of_all_files_are_reported_at_once_file_by_file() -> None:
    problems = refusal(
        f"{START}include: [b.yaml, a.yaml]\nlog: {{level: loud}}\n",
        a="bots:\n  echo: {plugin: [plugins.echo]}\n",
        b="bots:\n  desk: {plugins: [plugins.help], ack: never}\nretention: 1 sec\n",
    )

    assert [problem.partition(": ")[0] for problem in problems] == [
        "bots.yaml:4:14",
        "b.yaml:2:40",
        "b.yaml:3:12",
        "a.yaml:2:10",
    ]


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "a.yaml").write_bytes(b"x: 1\n\xff")
    (folder / "b.yaml").mkdir()

    assert refusal(f"{START}include: [a.yaml, b.yaml]\n{ECHO}") == [
        "bots.yaml:3:11: include[0]: a.yaml:2: this is not UTF-8 text; save the file as UTF-8",
        "bots.yaml:3:19: include[1]: b.yaml: this cannot be read: Is a directory",
    ]


def test_there_are_limits_to_how_many_files_there_may_be() -> None:
    write({f"many/{number:03}.yaml": "" for number in range(MAX_FILES)})

    (problem,) = refusal(f"{START}include: many/*.yaml\n{ECHO}")

    assert problem == f"bots.yaml:3:10: include: more than {MAX_FILES} files in total; include fewer"


def test_every_value_is_shown_with_the_file_that_it_came_from() -> None:
    config = load(f"{START}include: [a.yaml]\nlog: {{level: error}}\n", a=ECHO + "log: {format: json, level: debug}\n")

    found = {value.path: value.source for value in effective(config, config.document)}

    assert found[("log", "level")] == "bots.yaml:4:14"
    assert found[("log", "format")] == "a.yaml:3:15"
    assert found[("bots", "echo", "plugins", 0, "module")] == "a.yaml:2:20"
    assert found[("include", 0)] == "bots.yaml:3:11"
    assert found[("retention",)] == "default"


def test_later_findings_are_reported_with_the_line_of_the_included_file() -> None:
    config = load(f"{START}include: [a.yaml]\n", a=ECHO)

    assert config.problem(("bots", "echo", "plugins", 0), "no").startswith("a.yaml:2:20: bots.echo.plugins[0]: no\n")
