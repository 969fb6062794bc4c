"""The commands and their help. A command's module is imported when the command runs, so that --help is fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from chatbot.cli.boundary import EXIT_USAGE

app: Final = App(
    name="chatbot",
    help="Run and test bots for Azure Communication Services Chat, with or without Azure.",
    help_epilogue=(
        "Every command takes --help, and --debug to show the traceback of an unexpected error.\n\n"
        "Exit codes: 0 success, 1 crash, 2 usage, 69 unreachable, 75 degraded, 78 bad configuration, 130 Ctrl-C."
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
        "Create a plugin, its test, and its bot in a bots.yaml.",
        "All three are small and work unchanged; adapt them to your needs.",
    ),
    "run": (
        "Run the bots of a bots.yaml until stopped.",
        "SIGTERM or Ctrl-C stops after pending replies are sent; a second one stops at once. SIGHUP applies changes to "
        "bots.yaml and plugins, as `chatbot reload` does. With `service: emulator` the chat service runs in the same "
        "process and has a lobby, a thread with all bots.",
    ),
    "check": (
        "Check a bots.yaml, its plugins and its store without starting anything.",
        "Loads every plugin, resolves every handler, reads the store, and lists what it found, or every problem, with "
        "file and line. With --online it also connects to the service and requests a token for each bot that has a "
        "user; it creates nothing.",
    ),
    "config": (
        "Show the effective configuration.",
        "Every setting with its value and its source: file, line and column, a variable, or a default. "
        "Secrets are not shown.",
    ),
    "schema": (
        "Print the JSON Schema of bots.yaml, for editors.",
        "Includes the settings of the plugins that this bots.yaml names. Save it next to the file as bots.schema.json, "
        "and start the file with: # yaml-language-server: $schema=bots.schema.json",
    ),
    "status": (
        "Show the status of running bots.",
        "Threads, lag, quotas, dead letters and recent failures. Exits with 75 when something is degraded, and with 69 "
        "when the bots are unhealthy, not ready, or do not answer.",
    ),
    "reload": (
        "Apply changes to bots.yaml and plugins, and report what changed.",
        "Like the signal SIGHUP, but reports the result. If anything is wrong, nothing changes. Only changed bots are "
        "affected, and they lose no message: new plugins are swapped in between two events, and a bot with new "
        "settings first finishes its current work. --all then reloads the other processes that share the store, each "
        "from its own files, and names those that refuse or do not answer.",
    ),
    "pause": (
        "Pause a bot until it is resumed, also over restarts.",
        "The bot finishes its current work and then polls and handles nothing: messages stay in their threads, timers "
        "and schedules wait. Other bots keep running. Of processes that share a store, all pause it. `chatbot status` "
        "and the metric chatbot_paused show it. Asks the running bots; if none run, the next start leaves the bot out.",
    ),
    "resume": (
        "Resume a paused bot.",
        "It handles what arrived meanwhile, as after a restart. With --skip it passes over messages that arrived "
        "before now, or before its next start if no bots run; timers that became due still run.",
    ),
    "doctor": (
        "Diagnose packages, configuration, store, service and running bots, and suggest fixes.",
        "Checks packages, configuration, plugins, store, the connection to the service, clock, tokens, quotas and "
        "running bots. Changes nothing. Exits with 69 when something is wrong, and with 78 for the configuration. With "
        "--probe it measures your own resource instead, and writes how the emulator can behave like it.",
    ),
    "chat": (
        "Talk to running bots as a person.",
        "Type lines and read the replies; Ctrl-D leaves. /help lists more, such as /as NAME and /inspect. "
        "You join the lobby or, without one, the thread that you used last. Piped lines are sent, then replies are "
        "awaited briefly: echo hello | chatbot chat",
    ),
    "send": (
        "Send a message to a thread as a bot.",
        "The text is an argument or piped in: echo hello | chatbot send 19:…@thread.v2. Prints the message's id. If "
        "the service does not answer, the thread is read before the text is sent again. Other chatbots recognize it "
        "as a bot's message and do not answer.",
    ),
    "record": (
        "Record a thread with running bots as a conversation test.",
        "People are renamed to Ann, Ben, …; ids, e-mail addresses and phone numbers are masked.",
    ),
    "replay": (
        "Replay a recorded conversation against the current code, and show replies that differ.",
        "Runs twice in virtual time, each time in a process and on an emulator of its own: no message is sent. Replies "
        "that the two runs give differently, or that are made from random numbers or the clock, are not repeatable; "
        "they count as no difference. Network and programs are refused to handlers unless --allow-network is given. "
        "Exits with 1 if any reply differs.",
    ),
    "emulator": (
        "Run an emulator of the chat service on this machine.",
        "Every Azure Communication Services SDK works with the connection string that it prints.",
    ),
    "completion": (
        "Print the completion script of a shell: bash, zsh or fish.",
        'For bash: eval "$(chatbot completion bash)" in ~/.bashrc. For zsh: chatbot completion zsh > a file _chatbot '
        "in a directory of $fpath. For fish: chatbot completion fish > ~/.config/fish/completions/chatbot.fish",
    ),
}
_MODULES: Final = {"schema": "config", "resume": "pause"}
"""Commands that are not in the module of their name."""

_WITH_SUBCOMMANDS: Final = {"emulator": "chatbot.cli.emulator:command"}
"""Commands that have subcommands, too: their apps, which are imported when the command runs."""

for _position, (_name, _help) in enumerate(_COMMANDS.items()):
    if _name in _WITH_SUBCOMMANDS:
        app.command(_WITH_SUBCOMMANDS[_name], name=_name, help="\n\n".join(_help), sort_key=_position)
        continue
    app.command(
        f"chatbot.cli.{_MODULES.get(_name, _name)}:{_name}",
        name=_name,
        help="\n\n".join(_help),
        sort_key=_position,
        help_epilogue="",
    )

_USES_DAEMON_OR_STORE: Final = "Asks the running bots; if none run, it opens their store."
_CALLS_SERVICE: Final = "Calls the service directly, whether the bots run or not; the emulator runs only while they do."

_GROUPS: Final = {
    "threads": (
        "List and change the threads that a bot is in.",
        _CALLS_SERVICE,
        {
            "list": ("list_threads", "List a bot's threads with topics and participants, most recently active first."),
            "create": ("create_thread", "Create a thread with a bot in it, and print its id."),
            "add": ("add_person", "Add a person to a thread."),
            "remove": ("remove_person", "Remove a person from a thread."),
            "leave": (
                "leave",
                "Remove a bot from a thread. Asks for confirmation, because only other members can add it again.",
            ),
        },
    ),
    "identity": (
        "Create users; show bots' users and token lifetimes; revoke tokens.",
        _CALLS_SERVICE,
        {
            "create": (
                "create",
                "Create a user of the resource and print its id, for a bot's `user:` in bots.yaml or for a person.",
            ),
            "show": ("show", "Show the bots' users, where they are stored, and how long their tokens are valid."),
            "adopt": (
                "adopt",
                "Assign a bot its former user after it was renamed (--from) or its store was lost.",
            ),
            "revoke": (
                "revoke",
                "Revoke all tokens of a bot's user, for example after a leak. Asks for confirmation.",
            ),
        },
    ),
    "dead-letters": (
        "List, show, retry and drop events that the bots could not handle.",
        _USES_DAEMON_OR_STORE,
        {
            "list": ("list_letters", "List dead letters, oldest first, without message texts."),
            "show": ("show_letter", "Show one dead letter in full, including the message text."),
            "retry": ("retry_letters", "Retry one or all dead letters, now or at the bots' next start."),
            "drop": ("drop_letters", "Delete one or all dead letters. Asks first if it is all of them."),
        },
    ),
    "state": (
        "Manage what the bots have stored.",
        _USES_DAEMON_OR_STORE,
        {
            "list": ("list_state", "List states, dialogs and timers, without their values."),
            "show": ("show_state", "Show one state, dialog or timer with its values."),
            "export": ("export", "Print everything that is stored about a person, as JSON."),
            "forget": ("forget", "Erase a person's data: what they wrote and what was written about them."),
            "end-dialog": ("end_dialog", "End a dialog, without a reply to the person."),
            "cancel-timer": ("cancel_timer", "Cancel a timer before it is due."),
        },
    ),
    "cluster": (
        "Show the processes that share a store on PostgreSQL.",
        "Asks the database, so it works on any machine that has bots.yaml, whether bots run there or not.",
        {
            "status": (
                "status",
                "Show the processes, the shards that each owns, and those without owner. Exits with 75 if a shard has "
                "had no owner for more than 10 s or a process is silent, and with 69 if the store cannot be reached.",
            ),
        },
    ),
    "store": (
        "Back up, check and copy the store.",
        "All but `copy` read the store directly, whether the bots run or not, and never change it.",
        {
            "backup": ("backup", "Write a consistent copy of the store, also while the bots run."),
            "info": ("info", "Show the bots in a store, their users, and how many records each has."),
            "check": ("check", "Check that a store's file is sound. Exits with 69 if it is damaged."),
            "copy": ("copy", "Copy a store to another database (sqlite:///, postgresql://) while no bots run."),
        },
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


def run_command(arguments: Sequence[str]) -> int:
    """Run the command with these arguments; report a usage error as one sentence on stderr."""
    for word in arguments:
        if not _is_text(word):
            readable = word.encode("utf-8", "backslashreplace").decode()
            print(f"chatbot: {readable!r} is not UTF-8: set the terminal and LANG to UTF-8", file=sys.stderr)
            return EXIT_USAGE
    try:
        result = app(arguments)
    except CycloptsError as error:
        return _refuse(error)
    return result if isinstance(result, int) else 0


def _is_text(word: str) -> bool:
    """Return whether an argument is valid UTF-8; other bytes could name a file, but cannot be sent to the service."""
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
