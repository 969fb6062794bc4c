"""The commands and their help. A command's module is imported when the command runs, so that --help is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from chatbot.cli.boundary import EXIT_USAGE

app: Final = App(
    name="chatbot",
    help="Bots for Azure Communication Services Chat: run them, try them, with or without Azure.",
    help_epilogue=(
        "Every command takes --help, and --debug to see where an unexpected error came from.\n\n"
        "Exit codes: 0 done, 1 crash, 2 usage, 69 not reachable, 78 bad configuration, 130 Ctrl-C."
    ),
    help_format="plaintext",
    help_on_error=False,
    version=lambda: _version(),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
app["--help"].group = app["--version"].group = "Options"

_COMMANDS: Final = {
    "new": (
        "Make a plugin, its test, and its bot in a bots.yaml.",
        "All three are small and work at once: change them into what you want.",
    ),
    "run": (
        "Run the bots of a bots.yaml until told to stop.",
        "SIGTERM or Ctrl-C let answers that are under way go out first; a second one stops at once. SIGHUP takes up "
        "what has changed in bots.yaml and in the plugins, as `chatbot reload` does. With `service: emulator` the "
        "chat service runs in the same process, and there is a lobby in which to talk to the bots.",
    ),
    "check": (
        "Check a bots.yaml, its plugins and its store, and start nothing.",
        "Loads every plugin, resolves every handler, looks at the store, and shows what it found, with file and line; "
        "or all that is wrong. With --online it goes the way to the service, and asks there for a token of each bot "
        "that has a user; it makes nothing.",
    ),
    "config": (
        "Show the configuration as it is in force.",
        "Every setting with its value and where it came from: file, line and column, the variable, or a default. "
        "Secrets are not shown.",
    ),
    "schema": (
        "Print the JSON Schema of bots.yaml, for editors.",
        "With the settings of the plugins that this bots.yaml names. Keep it beside the file, as bots.schema.json, and "
        "write into the file's first line: # yaml-language-server: $schema=bots.schema.json",
    ),
    "status": (
        "Show how running bots are doing.",
        "Threads, lags, quotas, dead letters, the latest failures. Exits with 75 when something is degraded, with 69 "
        "when they are not healthy, not ready, or do not answer.",
    ),
    "reload": (
        "Have running bots take up what has changed in bots.yaml and in their plugins.",
        "As the signal SIGHUP does, and with an answer. What is wrong changes nothing. Only bots that have changed are "
        "touched, and those lose nothing: other plugins come in between two events, and a bot with other settings "
        "first finishes what it has in hand.",
    ),
    "doctor": (
        "Look at everything that bots need, and say what to do.",
        "Packages, configuration, plugins, store, the way to the service, clock, tokens, quotas, the bots that run. "
        "Changes nothing. Exits with 69 when something is wrong, with 78 when it is the configuration.",
    ),
    "chat": (
        "Talk to running bots, as a person.",
        "Type lines and see what comes; Ctrl-D leaves. You come into the lobby; where there is none, back to where you "
        "talked last. Piped lines are sent, and answers waited for a moment: echo hello | chatbot chat",
    ),
    "send": (
        "Say something in a thread, as a bot.",
        "A text, or what is piped in: echo hello | chatbot send 19:…@thread.v2. Prints the message's id. If no answer "
        "comes, the thread is looked at before the text is sent again. Other chatbots know it for a bot's message, and "
        "do not answer it.",
    ),
    "record": (
        "Write a thread with running bots down, as a conversation that is a test.",
        "People become Ann, Ben, …; their ids, e-mail addresses and phone numbers are masked.",
    ),
    "replay": (
        "Perform a conversation again, with other plugins, and show where the replies are others.",
        "In virtual time, on an emulator of its own: nobody gets a message. Exits with 1 if any reply is another one.",
    ),
    "emulator": (
        "Serve the chat service on this machine.",
        "Any SDK of Azure Communication Services, in any language, works with the connection string that it prints.",
    ),
}
_MODULES: Final = {"schema": "config"}
"""Commands that are not in the module of their name."""

for _position, (_name, _help) in enumerate(_COMMANDS.items()):
    app.command(
        f"chatbot.cli.{_MODULES.get(_name, _name)}:{_name}",
        name=_name,
        help="\n\n".join(_help),
        sort_key=_position,
        help_epilogue="",
    )

_ASKS: Final = "Asks the running bots; where none run, it looks into their store itself."
_SPEAKS: Final = "Speaks to the service itself, whether the bots run or not; the emulator is there only while they do."

_GROUPS: Final = {
    "threads": (
        "The threads that a bot is in.",
        _SPEAKS,
        {
            "list": ("list_threads", "List a bot's threads, those that spoke last first: their topics, and who is in."),
            "create": ("create_thread", "Create a thread with a bot in it, and print its id."),
            "add": ("add_person", "Bring somebody into a thread."),
            "remove": ("remove_person", "Take somebody out of a thread."),
            "leave": ("leave", "Let a bot leave a thread. Asks first: only others can bring it back."),
        },
    ),
    "identity": (
        "The users that bots are, and their access tokens.",
        _SPEAKS,
        {
            "create": (
                "create",
                "Make a user of the resource, and print its id: for a bot's `user:` in bots.yaml, or for a person.",
            ),
            "show": ("show", "Show the bots' users, where they are remembered, and how long their tokens are valid."),
            "revoke": (
                "revoke",
                "Make all tokens of a bot's user worthless, in case one got into wrong hands. Asks first.",
            ),
        },
    ),
    "dead-letters": (
        "See, retry and drop what the bots have given up.",
        _ASKS,
        {
            "list": ("list_letters", "List what was given up, oldest first, without what people wrote."),
            "show": ("show_letter", "Show one dead letter whole, with what was written."),
            "retry": ("retry_letters", "Try a dead letter again, or all: now, or at the bots' next start."),
            "drop": ("drop_letters", "Forget a dead letter, or all."),
        },
    ),
    "state": (
        "What the bots remember.",
        _ASKS,
        {"forget": ("forget", "Erase a person: what they wrote, and what was said about them.")},
    ),
}
for _group, (_help_of_group, _how, _members) in _GROUPS.items():
    _sub = App(name=_group, help=f"{_help_of_group}\n\n{_how}", help_epilogue="", sort_key=len(_COMMANDS))
    _sub["--help"].group = "Options"
    for _position, (_name, (_function, _text)) in enumerate(_members.items()):
        _module = _group.replace("-", "_")
        _sub.command(f"chatbot.cli.{_module}:{_function}", name=_name, help=_text, sort_key=_position, help_epilogue="")
    app.command(_sub)


def _version() -> str:
    from chatbot.distribution import version

    return f"chatbot {version()}"


def run_command(words: Sequence[str]) -> int:
    """Run the command that these words name; a mistake in them is shown on stderr as one sentence."""
    for word in words:
        if not _is_text(word):
            shown = word.encode("utf-8", "backslashreplace").decode()
            print(f"chatbot: {shown!r} is not UTF-8: set the terminal and LANG to UTF-8", file=sys.stderr)
            return EXIT_USAGE
    try:
        result = app(words)
    except CycloptsError as error:
        return _refuse(error)
    return result if isinstance(result, int) else 0


def _is_text(word: str) -> bool:
    """Whether an argument can be sent to the service; bytes that are not UTF-8 can still name a file."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.path.exists(word)
    return True


def _refuse(error: CycloptsError) -> int:
    path = " ".join(["chatbot", *(error.command_chain or ())])
    print(f"{path}: {str(error).strip()}", file=sys.stderr)
    print(f"Try `{path} --help`.", file=sys.stderr)
    return EXIT_USAGE
