import importlib
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import anyio
import pytest

from chatbot import Plugin, PluginError
from chatbot.errors import PluginSettingsError
from chatbot.plugin import load_plugin
from chatbot.testing import EventStream
from tests.support.plugins import ECHO

pytestmark = pytest.mark.usefixtures("imports_restored")

FAQ = """
from chatbot import Context, Plugin
from pydantic import BaseModel

class Settings(BaseModel):
    language: str = "en"
    limit: int = 3

def plugin(settings: Settings) -> Plugin:
    made = Plugin("faq")

    @made.message()
    async def answer(ctx: Context) -> str:
        return f"{settings.language} {settings.limit}"

    return made
"""


def write(base_dir: Path, path: str, source: str) -> None:
    file = base_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(source))


def replies(plugin: Plugin) -> list[str]:
    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    return anyio.run(stream.into, plugin).replies


def refused(base_dir: Path, reference: str, settings: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(PluginError) as caught:
        load_plugin(reference, base_dir=base_dir, settings=settings)
    return str(caught.value).replace(f"{base_dir.resolve()}/", "")


@pytest.mark.parametrize(
    ("file", "reference"),
    [("echo.py", "echo"), ("plugins/echo.py", "plugins.echo"), ("plugins/echo/__init__.py", "plugins.echo")],
)
def test_a_plugin_is_found_below_the_configuration(file: str, reference: str, tmp_path: Path) -> None:
    write(tmp_path, file, ECHO)

    plugin = load_plugin(reference, base_dir=tmp_path)

    assert replies(plugin) == ["hi"]
    assert plugin.place.startswith(str(tmp_path / file))


def test_a_plugin_that_was_loaded_is_the_same_when_it_is_loaded_again(tmp_path: Path) -> None:
    write(tmp_path, "plugins/echo.py", ECHO)

    assert load_plugin("plugins.echo", base_dir=tmp_path) is load_plugin("plugins.echo", base_dir=tmp_path)


def test_a_plugin_of_the_same_name_elsewhere_is_not_mistaken_for_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, f"{name}/plugins/__init__.py", "")
        write(tmp_path, f"{name}/plugins/words.py", f"word = '{name}'")
        write(
            tmp_path, f"{name}/plugins/echo.py", ECHO.replace("ctx.text", "word") + "\nfrom plugins.words import word\n"
        )

    loaded = [load_plugin("plugins.echo", base_dir=tmp_path / name) for name in ("one", "two", "one")]

    assert [replies(plugin) for plugin in loaded] == [["one"], ["two"], ["one"]]


def test_a_factory_makes_a_plugin_of_its_settings(tmp_path: Path) -> None:
    write(tmp_path, "faq.py", FAQ)

    assert replies(load_plugin("faq", base_dir=tmp_path)) == ["en 3"]
    assert replies(load_plugin("faq", base_dir=tmp_path, settings={"language": "fr"})) == ["fr 3"]


def test_a_factory_may_do_without_settings(tmp_path: Path) -> None:
    write(tmp_path, "made.py", ECHO.replace("plugin", "it") + "\ndef plugin() -> Plugin:\n    return it\n")

    assert replies(load_plugin("made", base_dir=tmp_path)) == ["hi"]


def test_wrong_settings_are_refused_all_at_once(tmp_path: Path) -> None:
    write(tmp_path, "faq.py", FAQ)

    with pytest.raises(PluginSettingsError) as caught:
        load_plugin("faq", base_dir=tmp_path, settings={"langauge": "fr", "limit": "many"})

    assert str(caught.value).replace(f"{tmp_path.resolve()}/", "") == (
        "faq.py:9: settings.langauge: there is no such setting; did you mean language?;"
        " settings.limit: Input should be a valid integer, unable to parse string as an integer"
    )
    assert [path for path, _ in caught.value.problems] == [("langauge",), ("limit",)]


@pytest.mark.parametrize(
    ("source", "settings", "reason"),
    [
        (ECHO, {"a": 1}, "it.py:4: plugin 'echo' takes no settings, but has 'a'; remove them, or make `plugin`"),
        ("def plugin(): ...", {"a": 1}, "it.py:1: this plugin takes no settings, but has 'a'; remove them"),
        (FAQ, {"zzz": 1}, "it.py:9: settings.zzz: there is no such setting; there are language, limit"),
        ("def plugin(): ...", None, "it.py:1: the factory `plugin` returned None; it must return a Plugin"),
        ("def plugin(): 1 / 0", None, "it.py:1: the factory `plugin` failed: ZeroDivisionError: division by zero"),
        ("def plugin():\n  n = 1\n  n / 0", None, "it.py:3: the factory `plugin` failed: ZeroDivisionError: division"),
        ("from chatbot import Retry\nRetry(0)", None, "it.py:2: importing it failed: ValueError: Retry(attempts=0)"),
        ("import json\njson.loads('')", None, "it.py:2: importing it failed: JSONDecodeError: Expecting value"),
        ("def plugin(a: int): ...", None, "it.py:1: the factory `plugin` takes one parameter, its settings, typed as"),
        (
            "def plugin(a: 'B'): ...",
            None,
            "it.py:1: the annotations of the factory `plugin` cannot be resolved: name 'B'",
        ),
        ("async def plugin(): ...", None, "it.py:1: the factory `plugin` is async; write a plain `def`"),
        ("plugin = 3", None, "it.py: `plugin` is 3; it must be a Plugin, or a function that creates one from settings"),
        ("from chatbot import Plugin as plugin", None, "it.py: `plugin` is <class"),
        ("", None, 'it.py: the module it has no `plugin`; write `plugin = Plugin("it")`'),
        (ECHO.replace("plugin", "bot"), None, "it.py: the module it has no `plugin`; rename 'bot' to `plugin`"),
        ("import math\n1 / 0", None, "it.py:2: importing it failed: ZeroDivisionError: division by zero; a plugin"),
        ("import sys\nsys.exit('no')", None, "it.py:2: importing it failed: SystemExit: no; a plugin must import"),
        (
            "import asyncio\nraise asyncio.CancelledError",
            None,
            "it.py:2: importing it failed: CancelledError; a plugin",
        ),
        ("class E(BaseException): ...\nraise E('no')", None, "it.py:2: importing it failed: E: no; a plugin must"),
        (
            "\nimport nowhere_at_all",
            None,
            "it.py:2: there is no module 'nowhere_at_all'; install it, or correct the import",
        ),
        ("from math import nothing", None, "it.py:1: there is no 'nothing' in math; correct the import"),
        ("from chatbot import Dialogue", None, "it.py:1: there is no 'Dialogue' in chatbot; did you mean Dialog?"),
        ("def f(:\n  pass", None, "it.py:1: invalid syntax; correct the syntax"),
        (ECHO.replace("async ", ""), None, "it.py:6: handler echo is not async; write `async def echo`"),
        (
            ECHO.replace("ctx: Context", "ctx: Context, db: dict"),
            None,
            "it.py:6: parameter 'db' of echo is dict, which",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_with_its_place(
    source: str, settings: Mapping[str, Any] | None, reason: str, tmp_path: Path
) -> None:
    write(tmp_path, "it.py", source)

    assert refused(tmp_path, "it", settings).startswith(reason)


def test_a_failure_in_a_module_that_a_plugin_imports_is_named_there(tmp_path: Path) -> None:
    write(tmp_path, "plugins/echo.py", "import words" + ECHO)
    write(tmp_path, "words.py", "\n\nraise ValueError('no words')")

    assert refused(tmp_path, "plugins.echo").startswith(
        "words.py:3: importing plugins.echo failed: ValueError: no words"
    )


def test_a_plugin_that_failed_to_load_can_be_fixed_and_loaded(tmp_path: Path) -> None:
    write(tmp_path, "it.py", "1 / 0")
    refused(tmp_path, "it")
    write(tmp_path, "it.py", ECHO + "# fixed")

    assert load_plugin("it", base_dir=tmp_path).name == "echo"


@pytest.mark.parametrize(
    "reference", ["../x", "/etc/passwd", "plugins/echo", "plugins.echo.", ".echo", "", "a b", "a;b", "C:\\x", "1a"]
)
def test_only_import_paths_are_references(reference: str, tmp_path: Path) -> None:
    assert "is not an import path; name the module, with dots and without .py" in refused(tmp_path, reference)


@pytest.mark.parametrize("reference", ["os", "os.path", "chatbot", "chatbot.plugin", "__main__"])
def test_modules_of_python_and_chatbot_are_no_plugins(reference: str, tmp_path: Path) -> None:
    assert "not a plugin; give your module another name" in refused(tmp_path, reference)


def test_a_missing_module_is_reported_with_suggestions(tmp_path: Path) -> None:
    write(tmp_path, "plugins/echo.py", ECHO)

    assert refused(tmp_path, "plugins.ecko").endswith("did you mean plugins.echo?")
    assert "write here_or_there/zzz.py there, or install the package" in refused(tmp_path, "here_or_there.zzz")


def test_a_directory_needs_no_init_file_even_where_another_package_of_its_name_has_one(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/plugins/__init__.py", "")
    write(tmp_path, "elsewhere/plugins/echo.py", "1 / 0")
    write(tmp_path, "here/plugins/words.py", "word = 'hello'")
    write(tmp_path, "here/plugins/echo.py", "from plugins.words import word" + ECHO.replace("ctx.text", "word"))
    sys.path.insert(0, str(tmp_path / "elsewhere"))

    assert replies(load_plugin("plugins.echo", base_dir=tmp_path / "here")) == ["hello"]


def test_an_installed_package_offers_its_plugin_by_an_entry_point(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, "acme_dice/__init__.py", "")
    write(site, "acme_dice/bot.py", ECHO.replace("plugin", "dice"))
    write(site, "acme_dice-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme-dice\nVersion: 1.0\n")
    write(site, "acme_dice-1.0.dist-info/entry_points.txt", "[chatbot.plugins]\ndice = acme_dice.bot:dice\n")
    sys.path.append(str(site))

    assert load_plugin("dice", base_dir=tmp_path).name == "echo"


def test_a_module_next_to_the_configuration_takes_precedence_over_an_entry_point(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, "acme-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    write(site, "acme-1.0.dist-info/entry_points.txt", "[chatbot.plugins]\necho = nowhere:plugin\n")
    write(tmp_path, "echo.py", ECHO)
    sys.path.append(str(site))

    assert load_plugin("echo", base_dir=tmp_path).place.endswith("echo.py:4")


def test_an_entry_point_that_two_packages_offer_is_refused(tmp_path: Path) -> None:
    for name in ("acme", "bolt"):
        site = tmp_path / f"site-{name}"
        write(site, f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        write(site, f"{name}-1.0.dist-info/entry_points.txt", f"[chatbot.plugins]\ndice = {name}_dice\n")
        sys.path.append(str(site))

    assert refused(tmp_path, "dice") == (
        "plugin dice: several installed packages offer it: acme_dice, bolt_dice; name the module instead"
    )


def test_importing_chatbot_loads_nothing_heavy() -> None:
    heavy = ("azure", "yaml", "pydantic", "aiohttp", "structlog", "starlette", "cyclopts", "rich", "importlib.metadata")
    code = f"import sys, chatbot, chatbot.plugin; print([one for one in {heavy} if one in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file_form", ["NFC", "NFD"])
@pytest.mark.parametrize("named_form", ["NFC", "NFD"])
def test_a_module_is_found_in_whichever_form_its_file_is_named(
    tmp_path: Path, file_form: Literal["NFC", "NFD"], named_form: Literal["NFC", "NFD"]
) -> None:
    def spelled(name: str) -> str:
        return unicodedata.normalize(file_form, name)

    write(
        tmp_path, spelled("bötë/é.py"), ECHO + "from bötë import häufig\nfrom bötë.ö import O\nassert häufig.O is O\n"
    )
    write(tmp_path, spelled("bötë/häufig.py"), "from bötë.ö import O\n")
    write(tmp_path, spelled("bötë/ö/__init__.py"), "O = object()\n")

    plugin = load_plugin(unicodedata.normalize(named_form, "bötë.é"), base_dir=tmp_path)

    assert [handler.name for handler in plugin.handlers()] == ["bötë.é.echo"]
    assert load_plugin("bötë.é", base_dir=tmp_path) is plugin


def test_a_module_may_have_a_name_of_any_script(tmp_path: Path) -> None:
    write(tmp_path, "plugins_of_the_world/हिन्दी.py", ECHO)

    assert load_plugin("plugins_of_the_world.हिन्दी", base_dir=tmp_path).name == "echo"


def test_importing_the_plugin_class_loads_no_event_loop_no_dispatcher_and_no_store() -> None:
    code = "import sys; from chatbot import Context, Plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        *("asyncio", "anyio", "azure", "aiohttp", "cyclopts", "pydantic", "rich", "structlog", "cronsim"),
        *("chatbot.dispatch.dispatcher", "chatbot.conversation.unit_of_work", "chatbot.stores.writes"),
        *("chatbot.conversation.schedules", "chatbot.dispatch.error_handler"),
        *("decimal", "difflib", "hashlib", "html", "statistics", "typing_extensions", "uuid"),
    }


@pytest.mark.parametrize("package", ["chatbot", "chatbot.conversation", "chatbot.dispatch", "chatbot.plugin"])
def test_every_exported_name_has_a_home(package: str) -> None:
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense
