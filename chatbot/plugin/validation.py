"""Validation of the arguments of plugins and decorators: names, words, filters, options."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import timedelta

from chatbot.dispatch.filters import Filter, FilterLike, as_filter
from chatbot.dispatch.handler import Options
from chatbot.dispatch.outcome import Ack, Retry
from chatbot.dispatch.parameters import shown
from chatbot.errors import PluginError
from chatbot.normalization import is_word, normalize


def given_name(name: object, place: str) -> str:
    """Validate the name of a plugin.

    Raises:
        PluginError: it is not a valid name.
    """
    if not isinstance(name, str) or not name.strip():
        msg = f'{place}: {shown(name)} is no name of a plugin; write Plugin("dice")'
        raise PluginError(msg)
    return name


def given_words(words: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """Validate the words that cancel dialogs; None gives an empty tuple.

    Raises:
        PluginError: the value is not a sequence of texts.
    """
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words or ()):
        msg = f"{place}: cancel_words is {words!r}; give several words, as in cancel_words=('cancel', 'stop')"
        raise PluginError(msg)
    return tuple(words or ())


def given_command(name: object, place: str) -> str:
    """Validate the name of a command and return it normalized for lookup.

    Raises:
        PluginError: it cannot be typed as a command.
    """
    typed = normalize(name).removeprefix("/").lower() if isinstance(name, str) else ""
    if not is_word(typed.replace("-", "_")) or typed[0] in "-_":
        msg = (
            f"{place}: {shown(name)} cannot be typed as a command; use letters, digits, - and _, as in"
            ' @plugin.command("roll")'
        )
        raise PluginError(msg)
    return typed


def given_filter(filter: FilterLike | None, place: str) -> Filter | None:
    """Validate the filter of a handler, if it has one.

    Raises:
        PluginError: it is not a filter; a handler means that the decorator's parentheses are missing.
    """
    if inspect.iscoroutinefunction(filter):
        msg = (
            f"{place}: {filter.__name__} stands where a filter is wanted, but it is async: a handler's decorator needs"
            " its parentheses, as in @plugin.message(), and a filter is a plain function from an event to a bool"
        )
        raise PluginError(msg)
    try:
        return None if filter is None else as_filter(filter)
    except TypeError as error:
        msg = f"{place}: {error}"
        raise PluginError(msg) from None


def check_options(options: Options, place: str) -> None:
    """Reject invalid options at load time, because some would only fail once a handler fails.

    Raises:
        PluginError: an option is invalid.
    """
    timeout, retry, ack = options.timeout, options.retry, options.ack
    wrong = None
    if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta()):
        wrong = f"timeout={timeout!r} is not a time; write timeout=timedelta(seconds=60)"
    elif retry is not None and not isinstance(retry, Retry):
        wrong = f"retry={retry!r} does not say how to retry; write retry=Retry(attempts=3)"
    elif ack is not None and not isinstance(ack, Ack):
        wrong = f"ack={ack!r} is not when to acknowledge; write ack=Ack.HANDLED, or another one of Ack"
    elif not isinstance(options.from_bots, bool):
        wrong = f"from_bots={options.from_bots!r} is neither True nor False"
    if wrong is not None:
        msg = f"{place}: {wrong}"
        raise PluginError(msg)
