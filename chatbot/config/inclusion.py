"""Several files as one: `include` at the top of bots.yaml names files, relative to the one that names them.

What the including file says itself goes before what it includes; of two that it includes, the later goes before. `log`,
`server`, `event_grid` and `emulator` are put together key by key. Each bot is written in one file: two of one name are
a mistake.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from chatbot.config.document import Document, read_document
from chatbot.config.file import MissingError, UnreadableError, read_text, without_tilde
from chatbot.config.place import DataPath, Place, Problem

MOST_FILES: Final = 100
_BY_KEY: Final = ("log", "server", "event_grid", "emulator")
_EXPECTED: Final = "this must be a file, or a list of files (conf.d/*.yaml)"


def read_files(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a file and all that it includes; what is wrong is in the document's `problems`.

    Args:
        path: the file, as the user named it: the others are named after it.
        environ: what `${…}` and `!secret env:` look into.

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
        """A file with all that it includes."""
        own = read_document(str(path), text, self._environ, path.absolute().parent)
        self._open.append(path)
        included = [self._included(own, place, file) for place, file in _files(own)]
        self._open.pop()
        whole = _together(own, [document for document in included if document is not None])
        is_named_well = not any(problem.path[:1] == ("include",) for problem in own.problems)
        whole.is_complete = is_named_well and all(document is None or document.is_complete for document in included)
        self._read[_real(path)] = whole
        return whole

    def _included(self, own: Document, at: DataPath, path: Path) -> Document | None:
        """A file that another names at this place; None, with a problem there, if it cannot be had."""
        if _real(path) in {_real(one) for one in self._open}:
            circle = " → ".join(map(str, [*self._open, path]))
            own.refuse(at, f"this leads in a circle: {circle}; remove one of these")
            return None
        if (known := self._read.get(_real(path))) is not None:
            return known
        if len(self._read) + len(self._open) >= MOST_FILES:
            own.refuse(at, f"this makes more than {MOST_FILES} files; include fewer")
            return None
        try:
            text = read_text(path)
        except UnreadableError as error:
            remedy = "; name one that there is" if isinstance(error, MissingError) else ""
            own.refuse(at, f"{path}{f':{error.line}' if error.line else ''}: {error}{remedy}")
            return None
        document = self.read(path, text)
        if document.data is not None and not isinstance(document.data, dict):
            what = "this file is not a mapping; write settings into it, such as bots:"
            document.problems.append(Problem(Place(document.source, 1, 1), (), what))
            document.data = None
        document.is_complete &= document.data is not None or not document.problems
        return document


def _real(path: Path) -> Path:
    """The path without links; as far as it can be followed where links lead in a circle."""
    return Path(os.path.realpath(path))


def _files(document: Document) -> Iterator[tuple[DataPath, Path]]:
    """The files that a document includes, each with the place where it is named."""
    given = document.data.get("include") if isinstance(document.data, dict) else None
    entries = given if isinstance(given, list) else [] if given is None else [given]
    for index, entry in enumerate(entries):
        at: DataPath = ("include", index) if isinstance(given, list) else ("include",)
        if isinstance(entry, str) and entry:
            yield from ((at, file) for file in _matching(Path(document.source.name), entry))
        elif not any(problem.path == at for problem in document.problems):
            document.refuse(at, _EXPECTED)


def _matching(including: Path, entry: str) -> list[Path]:
    """The file of this name, or all files of this pattern, in the order of their names; none is none."""
    directory, name = including.parent, str(without_tilde(entry))
    if not glob.has_magic(name):
        return [directory / name]
    found = (directory / match for match in glob.glob(name, root_dir=directory, recursive=True))
    return sorted(file for file in found if file.is_file() and not file.samefile(including))


def _together(own: Document, included: list[Document]) -> Document:
    if not included:
        return own
    whole = Document(own.source, {})
    for document in included:
        _lay_over(whole, document, _of_others(document))
        whole.problems += document.problems
        whole.others += [name for name in (document.source.name, *document.others) if name not in whole.others]
    _lay_over(whole, own, own.data if isinstance(own.data, dict) else {})
    whole.problems += own.problems
    whole.values[()] = own.place(())
    return whole


def _of_others(document: Document) -> dict[str, Any]:
    """What an included file has for others: places for anchors, and what it includes itself, are its own."""
    data = document.data or {}
    return {key: value for key, value in data.items() if key != "include" and not key.startswith("x-")}


def _lay_over(whole: Document, upper: Document, data: Mapping[str, Any]) -> None:
    """Put what a document says over what is there."""
    for key, value in data.items():
        lower = whole.data.get(key)
        if key == "version" and lower not in (None, value):
            text = f"{whole.place((key,))} says another version; write the same in both"
            upper.refuse((key,), text)
        elif key == "bots" and lower is not None and not (isinstance(value, dict) and isinstance(lower, dict)):
            _keep_mapping(whole, upper, value)
        elif (key == "bots" or key in _BY_KEY) and isinstance(value, dict) and isinstance(lower, dict):
            _lay_keys_over(whole, upper, key, value)
        else:
            whole.data[key] = value
            _take_places(whole, upper, (key,))


def _keep_mapping(whole: Document, upper: Document, bots: object) -> None:
    """Where two say what bots there are, and one of them does not say it as a mapping."""
    if bots is None:  # `bots:` with nothing below it, because all bots are in other files
        return
    if isinstance(whole.data["bots"], dict):
        whole.data["bots"] = bots  # what is wrong with it is found as if it stood alone
        _take_places(whole, upper, ("bots",))


def _lay_keys_over(whole: Document, upper: Document, key: str, mapping: Mapping[str, Any]) -> None:
    merged = dict(whole.data[key])
    for name, value in mapping.items():
        path = (key, name)
        first, second = whole.place(path, of_key=True), upper.place(path, of_key=True)
        if key == "bots" and name in merged and first != second:
            text = f"there is a bot of this name at {first} already; keep one, or give it another name"
            upper.problems.append(Problem(second, path, text))
            continue
        merged[name] = value
        _take_places(whole, upper, path)
    whole.data[key] = merged


def _take_places(whole: Document, upper: Document, path: DataPath) -> None:
    for mine, others in ((whole.keys, upper.keys), (whole.values, upper.values)):
        for old in [one for one in mine if one[: len(path)] == path]:
            del mine[old]
        mine |= {one: place for one, place in others.items() if one[: len(path)] == path}
