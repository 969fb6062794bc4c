"""A YAML file as plain data that still knows where every value stands. No schema here; that comes after.

Read as YAML 1.2's core schema: `no`, `on` and `2026-11-23` are text; true, false, null and numbers are not.
Anchors, aliases and merge keys work; duplicate keys and aliases that multiply beyond all measure are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import SecretStr

from chatbot.config.file import UnreadableError, read_secret, without_tilde
from chatbot.config.interpolation import InterpolationError, interpolate
from chatbot.config.place import DataPath, Place, Problem, Source

_MOST_VALUES: Final = 20_000
_DEEPEST: Final = 50
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "merge")
)
_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")
_COLLECTIONS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    """Composes nodes; its resolvers are those of the core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - yaml's own class attribute, replaced not shared


for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (_MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(slots=True)
class Document:
    """What a file says.

    Args:
        data: mappings, lists, text, numbers, booleans, None, and `SecretStr` for `!secret`.
        values, keys: where each value, and each key, stands.
        problems: what is wrong already, each with its place and its path in the data.
        others: the names of the files that it includes, and those include.
        is_complete: whether all of them could be read.
    """

    source: Source
    data: Any = None
    values: dict[DataPath, Place] = field(default_factory=dict, repr=False)
    keys: dict[DataPath, Place] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    is_complete: bool = True

    def place(self, path: DataPath, *, of_key: bool = False) -> Place:
        """Where the value (or key) at this path stands; what is missing, where it would belong."""
        first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
        place = first.get(path) or second.get(path)
        if place is None and path:
            return self.place(path[:-1], of_key=True)
        return place or Place(self.source, 1, 1)

    def problem(self, path: DataPath, text: str, *, of_key: bool = False) -> Problem:
        """Something to be said about the value (or key) at this path."""
        return Problem(self.place(path, of_key=of_key), path, text)

    def refuse(self, path: DataPath, text: str) -> None:
        """Note that something is wrong with the value at this path."""
        self.problems.append(self.problem(path, text))


def read_document(name: str, text: str, environ: Mapping[str, str], directory: Path) -> Document:
    """Read a YAML text; what is wrong with it is in the document's `problems`, never raised.

    Args:
        name: the file as the user named it.
        environ: what `${…}` and `!secret env:` look into.
        directory: where the paths of `!secret file:` start.
    """
    document = Document(Source.of(name, text))
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(document.source, error))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        document.problems.append(_unreadable(document.source, error))
    else:
        if root is not None:
            builder = _Builder(document, environ, directory)
            document.data = builder.build(root, ())
    return document


def _syntax_problem(source: Source, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source, 1, 1)
    what = error.problem or error.context or "something"
    hint = ""
    line = source.lines[place.line - 1] if place.line <= len(source.lines) else ""
    if "${" in line and re.search(r"[\[{,]\s*(?:[\w-]+:\s*)?\$\{", line):
        hint = '; inside { } and [ ] write "${…}" in quotes'
    elif "\\t" in what or "\t" in line:
        hint = "; indent with spaces, not tabs"
    return Problem(place, (), f"this is not YAML: {what}{hint}")


def _unreadable(source: Source, error: Exception) -> Problem:
    if isinstance(error, RecursionError):
        return Problem(Place(source, 1, 1), (), f"this is nested too deeply (at most {_DEEPEST} levels)")
    if isinstance(error, yaml.reader.ReaderError):
        what = f"a character that YAML does not allow, U+{error.character:04X}; remove it"
        holders = (n for n, text in enumerate(source.lines, 1) if chr(error.character) in text)
        return Problem(Place(source, next(holders, 1), 1), (), what)
    return Problem(Place(source, 1, 1), (), f"this is not YAML: {error}")


class _TooMuchError(Exception):
    """The aliases of the file multiply it beyond measure."""


class _Builder:
    """Turns composed nodes into plain data, noting places and problems on the way."""

    def __init__(self, document: Document, environ: Mapping[str, str], directory: Path) -> None:
        self._document = document
        self._environ = environ
        self._directory = directory
        self._open: list[yaml.Node] = []
        self._left = _MOST_VALUES

    def build(self, root: yaml.Node, path: DataPath) -> Any:
        try:
            return self._value(root, path)
        except _TooMuchError:
            self._problem(root, (), f"aliases make more than {_MOST_VALUES:,} values; write fewer")
            return None

    def _value(self, node: yaml.Node, path: DataPath) -> Any:
        self._document.values[path] = self._place(node)
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError
        if any(node is outer for outer in self._open):
            return self._problem(node, path, "this alias contains itself")
        if len(self._open) >= _DEEPEST:
            return self._problem(node, path, f"this is nested too deeply (at most {_DEEPEST} levels)")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            return self._unknown_tag(node, path)
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: DataPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for key, value in self._merged(value_node, path).items():
                    merged.setdefault(key, value)
                continue
            key = key_node.value
            if not isinstance(key, str):
                self._problem(key_node, path, "a key must be a plain word")
                continue
            here = (*path, key)
            if key in own:
                first = self._document.keys[here].line
                self._problem(key_node, here, f"this key is given twice (first in line {first}); keep one")
                continue
            self._document.keys[here] = self._place(key_node)
            own[key] = self._value(value_node, here)
        return merged | own

    def _merged(self, node: yaml.Node, path: DataPath) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._problem(source, path, "<< must be followed by an alias of a mapping (<<: *name)")
                continue
            kept = dict(self._document.keys), dict(self._document.values)
            for key, value in self._value(source, path).items():
                merged.setdefault(key, value)
            self._document.keys |= kept[0]
            self._document.values |= kept[1]
        return merged

    def _scalar(self, node: yaml.Node, path: DataPath) -> Any:
        if node.tag == "!secret":
            return self._secret(node, path)
        if node.tag == _STR:
            return self._interpolated(node, path)
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return node.value.lower() == "true"
        if node.tag in (_INT, _FLOAT):
            return int(node.value) if node.tag == _INT and len(node.value) < 20 else float(node.value)
        return self._unknown_tag(node, path)

    def _unknown_tag(self, node: yaml.Node, path: DataPath) -> None:
        self._problem(node, path, f"the tag {node.tag} is not known here (only !secret is)")

    def _interpolated(self, node: yaml.Node, path: DataPath) -> Any:
        try:
            text = interpolate(node.value, self._environ)
        except InterpolationError as error:
            return self._problem(node, path, str(error))
        if "settings" not in path and (wrong := _UNUSABLE.search(text)):
            what = f"a character that no text or file name can have, U+{ord(wrong[0]):04X}; remove it"
            return self._problem(node, path, what)
        return text

    def _secret(self, node: yaml.Node, path: DataPath) -> Any:
        reference = self._interpolated(node, path)
        if reference is None:
            return None
        kind, _, name = str(reference).partition(":")
        if kind == "env" and name:
            value = self._environ.get(name)
            if value is None or not value.strip():
                state = "is not set" if value is None else "is empty"
                return self._problem(node, path, f"the environment variable {name} {state}")
            return SecretStr(value)
        if kind == "file" and name:
            file = self._directory / without_tilde(name)
            try:
                return SecretStr(read_secret(file))
            except UnreadableError as error:
                return self._problem(node, path, f"the secret file {file} cannot be used: {error}")
        return self._problem(node, path, "a secret is written !secret env:NAME or !secret file:PATH")

    def _problem(self, node: yaml.Node, path: DataPath, text: str) -> None:
        self._document.problems.append(Problem(self._place(node), path, text))

    def _place(self, node: yaml.Node) -> Place:
        start, end = node.start_mark, node.end_mark
        width = end.column - start.column if end.line == start.line else 1
        if isinstance(node, yaml.CollectionNode):
            width = 1
        return Place(self._document.source, start.line + 1, start.column + 1, max(width, 1))
