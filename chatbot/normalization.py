"""Normalization of typed text for comparison and parsing. Performs no I/O.

The same word can be typed in many ways: composed or decomposed accents, invisible characters added by a keyboard or an
editor, no-break spaces, curly quotation marks, dashes, full-width letters. All comparisons of command names, typed
arguments, choices, filters, mentions, names and dialog answers must use this module, so that they agree.

Normalized text is never shown: `ctx.text`, text arguments and sent messages keep the original characters. `Normalized`
therefore maps each of its characters to a position in the original.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, TypeVar

T = TypeVar("T")

DOUBLE_QUOTES: Final = '"“”„‟«»〝〞〟＂″'
SINGLE_QUOTES: Final = "'‘’‚‛‹›＇′ʼ´"
DASHES: Final = "-‐‑‒–—―−﹘﹣－"

_LINE_ENDS: Final = "\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES: Final = (
    "\t\x1f \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u2800"
)

# Unicode's Default_Ignorable_Code_Point, and control characters. Joiners and tags are kept or dropped by context.
_INVISIBLE_RANGES: Final = (
    (0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C),
    (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200B), (0x200E, 0x200F), (0x202A, 0x202E),
    (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFC),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0100, 0xE01EF),
)  # fmt: skip
INVISIBLE: Final = "".join(chr(code) for first, last in _INVISIBLE_RANGES for code in range(first, last + 1))
_JOINERS: Final = "\u200c\u200d"
_TAGS: Final = "".join(map(chr, range(0xE0000, 0xE0080)))
_CONTEXTUAL: Final = re.compile(f"[{_JOINERS}{_TAGS}]")
_BLACK_FLAG: Final = "\U0001f3f4"

_TABLE: Final[dict[int, str]] = str.maketrans(
    {
        **dict.fromkeys(INVISIBLE, ""),
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width letters, digits and signs
        **dict.fromkeys(_LINE_ENDS, "\n"),
        **dict.fromkeys(_SPACES, " "),
        **dict.fromkeys(DOUBLE_QUOTES, '"'),
        **dict.fromkeys(SINGLE_QUOTES, "'"),
        **dict.fromkeys(DASHES, "-"),
    }
)
_PLAIN: Final = re.compile(r"[\n -~]*+")
"""Text that is normalized already: printable ASCII and line feeds."""


# Scripts that are written without spaces between words, and Hangul, whose particles follow a name without a space: the
# character next to one of these may belong to another word.
_UNSPACED: Final = (
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)


@cache
def _unspaced() -> re.Pattern[str]:
    # Compiled with the first use: it takes 3 ms.
    return re.compile(_UNSPACED)


def is_plain(text: str) -> bool:
    """Return whether text is printable ASCII and line feeds, so that normalization does not change it."""
    return text.isascii() and (text.isprintable() or _PLAIN.fullmatch(text) is not None)


def normalize(text: str) -> str:
    """Normalize text for parsing: composed, no invisible characters, plain spaces, quotes, dashes and letters.

    Case, line breaks and runs of spaces are kept, and so are zero-width joiners and non-joiners inside a word.
    """
    if _PLAIN.fullmatch(text):
        return text
    plain = text.replace("\r\n", "\n").replace("\r", "\n").translate(_TABLE)
    if _CONTEXTUAL.search(plain):
        for loose in (_without_loose_joiners, _without_loose_tags):
            plain = "".join(map(plain.__getitem__, loose(plain)))
    return unicodedata.normalize("NFC", plain)


def fold(text: str) -> str:
    """Normalize text for comparison: also case-folded, with runs of spaces collapsed. Does not strip the text."""
    if not text.isascii():
        # A case mapping may decompose, and composition may change what is mapped.
        text = unicodedata.normalize("NFC", normalize(unicodedata.normalize("NFD", normalize(text)).casefold()))
    else:
        text = normalize(text).casefold()
    return _collapsed(text)


def spell(text: str) -> str:
    """Return text as `fold` does, with its case."""
    return _collapsed(normalize(text))


def fold_name(name: str) -> str:
    """Normalize a name of a person, bot, command or choice for comparison: folded and stripped."""
    if name.isascii() and name.isalnum():  # nearly every name of a command
        return name.lower()
    return " ".join(fold(name).split())


def numeric(word: str) -> str:
    """Normalize a word for parsing as a number or date: the digits of all scripts become ASCII."""
    word = normalize(word).strip()
    if word.isascii():
        return word
    digits = (unicodedata.decimal(char, None) for char in word)
    plain = (char if digit is None else str(digit) for char, digit in zip(word, digits, strict=True))
    return "".join(plain).replace("\u066b", ".").replace("\u066c", "")  # the Arabic decimal and thousands separators


def find_match(typed: str, named: Iterable[tuple[str, T]]) -> tuple[str, T] | None:
    """Return the entry whose name was typed: an exact match if there is one, else the first that compares equal."""
    pairs = tuple(named)
    wanted = fold_name(typed)
    same = next((pair for pair in pairs if pair[0] == typed), None)
    return same or next((pair for pair in pairs if fold_name(pair[0]) == wanted), None)


def most_similar(typed: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the name that is most like the typed one, for a suggestion; None if none is similar.

    None also if Python cannot load what compares them: the module is loaded with the first suggestion, when a process
    may have no file descriptor left, or code of a plugin may have replaced it. A person's event must not fail of that.

    Args:
        typed: the name.
        names: the known names.
        cutoff: how similar it must be, from 0 to 1.
    """
    try:
        from difflib import get_close_matches  # here: nearly no daemon needs it

        return next(iter(get_close_matches(typed, names, n=1, cutoff=cutoff)), None)
    except Exception:
        return None


def is_blank(text: str) -> bool:
    """Return whether text consists of spaces and invisible characters only."""
    return not "!" <= text[:1] <= "~" and not normalize(text).strip()


def is_word(text: str) -> bool:
    """Return whether normalized text is one word: letters of any script with their marks, digits and `_`."""
    return bool(text) and not _is_mark(text[0]) and all(char in _JOINERS or _is_of_word(char) for char in text)


def is_boundary(text: str, at: int) -> bool:
    """Return whether a word may begin or end at this place of normalized text."""
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if not (_is_of_word(before) and _is_of_word(after)):
        return True
    # "Bot" may be adjacent to a letter of a script without spaces. Within such a script, boundaries are undecidable.
    return bool(_unspaced().match(before)) != bool(_unspaced().match(after)) and not unicodedata.combining(after)


def is_unspaced(char: str) -> bool:
    """Return whether a character belongs to a script that is written without spaces."""
    return _unspaced().match(char) is not None


class Normalized:
    """Normalized text that maps its characters to positions in the original.

    Args:
        original: the typed text.

    Attributes:
        text: the normalized text.
    """

    __slots__ = ("_starts", "original", "text")

    def __init__(self, original: str) -> None:
        self.original = original
        self.text = normalize(original)
        self._starts: list[int] | None = None if self.text == original else _starts_of(original, self.text)

    def original_at(self, at: int) -> int:
        """Return the position in the original where the normalized character at `at` begins."""
        return at if self._starts is None else self._starts[at]

    def normalized_at(self, at: int) -> int:
        """Return the first normalized position at or after a position of the original."""
        return at if self._starts is None else bisect_left(self._starts, at)


def _starts_of(original: str, text: str) -> list[int]:
    """Return the start in the original of each normalized character, followed by the original's length."""
    plain, places = _placed(original)
    starts: list[int] = []
    for first, last in _clusters(plain):
        starts += [places[first]] * len(unicodedata.normalize("NFC", plain[first:last]))
    if len(starts) != len(text):  # defensive; never observed. Arguments of a command might be cut at a wrong position.
        starts = [min(at, len(original)) for at in range(len(text))]
    return [*starts, len(original)]


def _placed(original: str) -> tuple[str, list[int]]:
    """Return the text that `normalize` composes last, with positions. Must apply the same steps as `normalize`."""
    chars, places = [], []
    for at, char in enumerate(original):
        made = "\n" if char == "\r" else _TABLE.get(ord(char), char)
        if made == "\n" and original[at - 1 : at] == "\r" and char == "\n":
            continue
        chars.append(made)
        places.append(at)
    kept = [at for at, char in enumerate(chars) if char]
    for loose in (_without_loose_joiners, _without_loose_tags):
        plain = "".join(chars[at] for at in kept)
        kept = [kept[at] for at in loose(plain)]
    return "".join(chars[at] for at in kept), [places[at] for at in kept]


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges that are composed independently: a character with its marks, or a Hangul syllable."""
    first = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or not (_is_mark(text[at]) or "\u1160" <= text[at] <= "\u11ff"):
            yield first, at
            first = at


def _without_loose_joiners(text: str) -> Iterator[int]:
    """Yield the positions to keep: joiners only between two characters of a word or of an emoji."""
    for at, char in enumerate(text):
        if char not in _JOINERS or (0 < at < len(text) - 1 and _is_joined(text[at - 1]) and _is_joined(text[at + 1])):
            yield at


def _without_loose_tags(text: str) -> Iterator[int]:
    """Yield the positions to keep: tags only if they form the flag of a region."""
    is_flag = False
    for at, char in enumerate(text):
        is_tag = char in _TAGS
        if not is_tag or is_flag:
            yield at
        is_flag = char == _BLACK_FLAG or (is_flag and is_tag)


def _is_of_word(char: str) -> bool:
    return char == "_" or char.isalnum() or _is_mark(char)


def _is_joined(char: str) -> bool:
    return _is_of_word(char) or unicodedata.category(char) in ("So", "Sk")


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _collapsed(text: str) -> str:
    return re.sub(" {2,}", " ", text) if "  " in text else text
