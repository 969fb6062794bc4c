"""Read YAML files as plain data with the source location of every value. The schema is checked later.

Read as YAML 1.2's core schema: `no`, `on` and `2026-11-23` are text; true, false, null and numbers are not.
Anchors, aliases and merge keys work; duplicate keys and aliases that expand to too many values are refused.

Several files can form one configuration: `include` at the top of bots.yaml names files, relative to the including one.
Settings of the including file take precedence over included ones; of two included files, the later one takes
precedence. `log`, `server`, `event_grid` and `emulator` are merged key by key. Each bot is written in one file: two
bots of the same name are an error.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import SecretStr

from chatbot.config.file import MissingError, UnreadableError, read_secret, read_text, without_tilde
from chatbot.config.interpolation import InterpolationError, UnsetVariableError, interpolate
from chatbot.config.source_location import DataPath, Problem, SourceLocation, SourceText

_MAX_VALUES: Final = 20_000
_MAX_DEPTH: Final = 50
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
    """The content of a file.

    Args:
        data: mappings, lists, text, numbers, booleans, None, and `SecretStr` for `!secret`.
        values, keys: the source location of each value, and of each key.
        problems: the problems found so far, each with its place and its path in the data.
        others: the names of all files that it includes, directly or indirectly.
        is_complete: whether all included files could be read.
    """

    source: SourceText
    data: Any = None
    values: dict[DataPath, SourceLocation] = field(default_factory=dict, repr=False)
    keys: dict[DataPath, SourceLocation] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    is_complete: bool = True

    def place(self, path: DataPath, *, of_key: bool = False) -> SourceLocation:
        """Return the location of the value (or key) at this path; if it is missing, the location where it belongs."""
        first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
        place = first.get(path) or second.get(path)
        if place is None and path:
            return self.place(path[:-1], of_key=True)
        return place or SourceLocation(self.source, 1, 1)

    def is_secret(self, path: DataPath) -> bool:
        """Return whether the value at this path is written as `!secret`."""
        place = self.values.get(path)
        if place is None:
            return False
        written = place.source.lines[place.line - 1][place.column - 1 :]
        return re.match(r"(&\S+\s+)?!secret\b", written) is not None

    def problem(self, path: DataPath, text: str, *, of_key: bool = False) -> Problem:
        """Return a problem of the value (or key) at this path."""
        return Problem(self.place(path, of_key=of_key), path, text)

    def refuse(self, path: DataPath, text: str) -> None:
        """Add a problem of the value at this path."""
        self.problems.append(self.problem(path, text))


def read_document(name: str, text: str, environ: Mapping[str, str], directory: Path) -> Document:
    """Read a YAML text. Problems are never raised, but listed in the document's `problems`.

    Args:
        name: the file as the user named it.
        environ: the environment variables for `${…}` and `!secret env:`.
        directory: paths of `!secret file:` are relative to it.
    """
    document = Document(SourceText.of(name, text))
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


def _syntax_problem(source: SourceText, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = SourceLocation(source, mark.line + 1, mark.column + 1) if mark else SourceLocation(source, 1, 1)
    what = error.problem or error.context or "something"
    hint = ""
    line = source.lines[place.line - 1] if place.line <= len(source.lines) else ""
    if "${" in line and re.search(r"[\[{,]\s*(?:[\w-]+:\s*)?\$\{", line):
        hint = '; inside { } and [ ] write "${…}" in quotes'
    elif "\\t" in what or "\t" in line:
        hint = "; indent with spaces, not tabs"
    elif (quote := _unclosed_quote(error, source)) is not None:
        return quote
    elif error.context_mark is not None:
        opened = error.context_mark.line + 1
        for kind, opening, closing in (("flow sequence", "[", "]"), ("flow mapping", "{", "}")):
            if kind in (error.context or ""):
                hint = f"; write {closing} where the {opening} of line {opened} ends, and commas between its parts"
    return Problem(place, (), f"this is not YAML: {what}{hint}")


def _unclosed_quote(error: yaml.MarkedYAMLError, source: SourceText) -> Problem | None:
    """Return the problem of a quote that is not closed, where it opens: the parser gives up at the end of the file."""
    start = error.context_mark
    if start is None or "quoted scalar" not in (error.context or "") or start.line >= len(source.lines):
        return None
    quote = source.lines[start.line][start.column : start.column + 1]
    if quote not in ("'", '"') or "end of stream" not in (error.problem or ""):
        return None
    place = SourceLocation(source, start.line + 1, start.column + 1)
    return Problem(place, (), f"this is not YAML: this quote is not closed; write {quote} at the end of the text")


def _unreadable(source: SourceText, error: Exception) -> Problem:
    if isinstance(error, RecursionError):
        return Problem(SourceLocation(source, 1, 1), (), f"this is nested too deeply (at most {_MAX_DEPTH} levels)")
    if isinstance(error, yaml.reader.ReaderError):
        what = f"a character that YAML does not allow, U+{error.character:04X}; remove it"
        holders = (n for n, text in enumerate(source.lines, 1) if chr(error.character) in text)
        return Problem(SourceLocation(source, next(holders, 1), 1), (), what)
    return Problem(SourceLocation(source, 1, 1), (), f"this is not YAML: {error}")


class _TooMuchError(Exception):
    """The aliases of the file expand to too many values."""


class _Builder:
    """Converts composed nodes to plain data, and records locations and problems."""

    def __init__(self, document: Document, environ: Mapping[str, str], directory: Path) -> None:
        self._document = document
        self._environ = environ
        self._directory = directory
        self._open: list[yaml.Node] = []
        self._left = _MAX_VALUES

    def build(self, root: yaml.Node, path: DataPath) -> Any:
        try:
            return self._value(root, path)
        except _TooMuchError:
            self._problem(root, (), f"aliases expand to more than {_MAX_VALUES:,} values; use fewer")
            return None

    def _value(self, node: yaml.Node, path: DataPath) -> Any:
        self._document.values[path] = self._place(node)
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError
        if any(node is outer for outer in self._open):
            return self._problem(node, path, "this alias contains itself")
        if len(self._open) >= _MAX_DEPTH:
            return self._problem(node, path, f"this is nested too deeply (at most {_MAX_DEPTH} levels)")
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
                self._problem(key_node, here, f"this key is duplicated (first in line {first}); remove one")
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
        self._problem(node, path, f"unknown tag {node.tag}; only !secret is supported")

    def _interpolated(self, node: yaml.Node, path: DataPath) -> Any:
        try:
            text = interpolate(node.value, self._environ)
        except InterpolationError as error:
            return self._problem(node, path, str(error), is_unset=isinstance(error, UnsetVariableError))
        if "settings" not in path and (wrong := _UNUSABLE.search(text)):
            what = f"a character that no text or file name can contain, U+{ord(wrong[0]):04X}; remove it"
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
                return self._problem(node, path, f"the environment variable {name} {state}", is_unset=True)
            return SecretStr(value)
        if kind == "file" and name:
            file = self._directory / without_tilde(name)
            try:
                return SecretStr(read_secret(file))
            except UnreadableError as error:
                return self._problem(node, path, f"the secret file {file} cannot be read: {error}", is_unset=True)
        return self._problem(node, path, "write a secret as !secret env:NAME or !secret file:PATH")

    def _problem(self, node: yaml.Node, path: DataPath, text: str, *, is_unset: bool = False) -> None:
        self._document.problems.append(Problem(self._place(node), path, text, is_unset=is_unset))

    def _place(self, node: yaml.Node) -> SourceLocation:
        start, end = node.start_mark, node.end_mark
        width = end.column - start.column if end.line == start.line else 1
        if isinstance(node, yaml.CollectionNode):
            width = 1
        return SourceLocation(self._document.source, start.line + 1, start.column + 1, max(width, 1))


MAX_FILES: Final = 100
_BY_KEY: Final = ("log", "server", "event_grid", "emulator")
_EXPECTED: Final = "this must be a file, or a list of files (conf.d/*.yaml)"


def read_files(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a file and all files that it includes. Problems are listed in the document's `problems`.

    Args:
        path: the file, as the user named it; the names of the others derive from it.
        environ: the environment variables for `${…}` and `!secret env:`.

    Raises:
        UnreadableError: the file itself cannot be read.
    """
    return _Reader(environ).read(path, read_text(path))


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: dict[Path, Document] = {}
        self._open: list[Path] = []

    def read(self, path: Path, text: str) -> Document:
        """Reads a file and all files that it includes."""
        own = read_document(str(path), text, self._environ, path.absolute().parent)
        self._open.append(path)
        included = [self._included(own, place, file) for place, file in _files(own)]
        self._open.pop()
        whole = _merge_included(own, [document for document in included if document is not None])
        is_named_well = not any(problem.path[:1] == ("include",) for problem in own.problems)
        whole.is_complete = is_named_well and all(document is None or document.is_complete for document in included)
        self._read[_real(path)] = whole
        return whole

    def _included(self, own: Document, at: DataPath, path: Path) -> Document | None:
        """Return an included file; None, with a problem at the including place, if it cannot be read."""
        if _real(path) in {_real(one) for one in self._open}:
            circle = " → ".join(map(str, [*self._open, path]))
            own.refuse(at, f"circular include: {circle}; remove one `include`")
            return None
        if (known := self._read.get(_real(path))) is not None:
            return known
        if len(self._read) + len(self._open) >= MAX_FILES:
            own.refuse(at, f"more than {MAX_FILES} files in total; include fewer")
            return None
        try:
            text = read_text(path)
        except UnreadableError as error:
            remedy = "; name an existing file" if isinstance(error, MissingError) else ""
            own.refuse(at, f"{path}{f':{error.line}' if error.line else ''}: {error}{remedy}")
            return None
        document = self.read(path, text)
        if document.data is not None and not isinstance(document.data, dict):
            what = "this file is not a mapping; write settings such as bots: at its top"
            document.problems.append(Problem(SourceLocation(document.source, 1, 1), (), what))
            document.data = None
        document.is_complete &= document.data is not None or not document.problems
        return document


def _real(path: Path) -> Path:
    """Return the path with links resolved, as far as possible if links form a cycle."""
    return Path(os.path.realpath(path))


def _files(document: Document) -> Iterator[tuple[DataPath, Path]]:
    """Yield the files that a document includes, each with the location of its name."""
    given = document.data.get("include") if isinstance(document.data, dict) else None
    entries = given if isinstance(given, list) else [] if given is None else [given]
    for index, entry in enumerate(entries):
        at: DataPath = ("include", index) if isinstance(given, list) else ("include",)
        if isinstance(entry, str) and entry:
            yield from ((at, file) for file in _matching(Path(document.source.name), entry))
        elif not any(problem.path == at for problem in document.problems):
            document.refuse(at, _EXPECTED)


def _matching(including: Path, entry: str) -> list[Path]:
    """Return the file of this name, or all files that match this pattern, sorted by name."""
    directory, name = including.parent, str(without_tilde(entry))
    if not glob.has_magic(name):
        return [directory / name]
    found = (directory / match for match in glob.glob(name, root_dir=directory, recursive=True))
    return sorted(file for file in found if file.is_file() and not file.samefile(including))


def _merge_included(own: Document, included: list[Document]) -> Document:
    if not included:
        return own
    whole = Document(own.source, {})
    for document in included:
        _merge_over(whole, document, _data_of_included(document))
        whole.problems += document.problems
        whole.others += [name for name in (document.source.name, *document.others) if name not in whole.others]
    _merge_over(whole, own, own.data if isinstance(own.data, dict) else {})
    whole.problems += own.problems
    whole.values[()] = own.place(())
    return whole


def _data_of_included(document: Document) -> dict[str, Any]:
    """Return the settings of an included file that count for the including one: all but `include` and anchors (x-…)."""
    data = document.data or {}
    return {key: value for key, value in data.items() if key != "include" and not key.startswith("x-")}


def _merge_over(merged: Document, upper: Document, data: Mapping[str, Any]) -> None:
    """Merge the settings of a document over those merged so far."""
    for key, value in data.items():
        lower = merged.data.get(key)
        if key == "version" and lower not in (None, value):
            text = f"{merged.place((key,))} has a different version; write the same in both"
            upper.refuse((key,), text)
        elif key == "bots" and lower is not None and not (isinstance(value, dict) and isinstance(lower, dict)):
            _keep_mapping(merged, upper, value)
        elif (key == "bots" or key in _BY_KEY) and isinstance(value, dict) and isinstance(lower, dict):
            _merge_keys(merged, upper, key, value)
        else:
            merged.data[key] = value
            _copy_places(merged, upper, (key,))


def _keep_mapping(merged: Document, upper: Document, bots: object) -> None:
    """Merge `bots` of two documents one of which has no mapping there."""
    if bots is None:  # an empty `bots:`, because all bots are in other files
        return
    if isinstance(merged.data["bots"], dict):
        merged.data["bots"] = bots  # its problem is reported by the validation, as in a single file
        _copy_places(merged, upper, ("bots",))


def _merge_keys(merged: Document, upper: Document, key: str, mapping: Mapping[str, Any]) -> None:
    values = dict(merged.data[key])
    for name, value in mapping.items():
        path = (key, name)
        first, second = merged.place(path, of_key=True), upper.place(path, of_key=True)
        if key == "bots" and name in values and first != second:
            text = f"a bot of this name exists at {first}; rename or remove one"
            upper.problems.append(Problem(second, path, text))
            continue
        values[name] = value
        _copy_places(merged, upper, path)
    merged.data[key] = values


def _copy_places(merged: Document, upper: Document, path: DataPath) -> None:
    for mine, others in ((merged.keys, upper.keys), (merged.values, upper.values)):
        for old in [one for one in mine if one[: len(path)] == path]:
            del mine[old]
        mine |= {one: place for one, place in others.items() if one[: len(path)] == path}
