"""Adds a bot to the text of a bots.yaml, and leaves everything else in it as it is: comments, order, blanks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from chatbot.errors import ConfigError


def with_bot(text: str, name: str, lines: Sequence[str], *, file: str) -> str:
    """The text with one bot more, behind those it has.

    Args:
        text: the file's, which is a valid configuration; all its bots may be in files that it includes.
        name: the new bot's.
        lines: its settings, without indentation.
        file: what problems call it.

    Raises:
        ConfigError: the bots are written in a way that cannot be added to.
    """
    bots = _bots(text, file)
    if bots is None:
        return "\n".join([*text.splitlines(), "", "bots:", f"  {name}:", *(f"    {line}" for line in lines)]) + "\n"
    key, last = bots.value[-1]
    column = key.start_mark.column
    indent = " " * column
    added = [f"{indent}{name}:", *(f"{indent}  {line}" for line in lines)]
    before = text.splitlines()
    end = _end(last) + 1
    while end < len(before) and _is_comment_of(before[end], column):
        end += 1
    gap = [""] if any(not line.strip() for line in before[bots.start_mark.line : end]) else []
    return "\n".join([*before[:end], *gap, *added, *before[end:]]) + "\n"


def _bots(text: str, file: str) -> yaml.MappingNode | None:
    """The node of the bots; None where there is no such key."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    value = entries.get("bots")
    if value is None:
        return None
    if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
        return value
    msg = f"{file}: its `bots` are not one below the other, so nothing can be added to them; write the entry yourself"
    raise ConfigError(msg)


def _end(node: yaml.Node) -> int:
    """The last line that a value stands on; what a block mapping ends with is the start of whatever follows it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    is_beyond = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") and node.end_mark.column == 0
    return int(node.end_mark.line) - (1 if is_beyond else 0)


def _is_comment_of(line: str, column: int) -> bool:
    """Whether a line is a comment that stands deeper than the bots' names: one about the last bot."""
    bare = line.lstrip()
    return bare.startswith("#") and len(line) - len(bare) > column
