"""What people type, as it is compared and parsed. The only normalization of typed text. Pure.

One word can be typed in many ways: composed or decomposed accents, invisible marks that a keyboard or an editor adds,
no-break spaces, curly quotation marks, dashes, full-width letters. Command names, typed arguments, choices, filters,
mentions, names and answers of dialogs are compared through this module.

Normalized text is never shown: `ctx.text`, text arguments and what a bot sends keep the person's characters.
`Normalized` therefore knows where each of its characters stands in the original.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

DOUBLE_QUOTES: Final = '"“”„‟«»〝〞〟＂″'
SINGLE_QUOTES: Final = "'‘’‚‛‹›＇′ʼ´"
DASHES: Final = "-‐‑‒–—―−﹘﹣－"

_LINE_ENDS: Final = "\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES: Final = (
    "\t\x1f \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u2800"
)

# Unicode's Default_Ignorable_Code_Point, and control characters. Joiners and tags are decided by what is around them.
_INVISIBLE_RANGES: Final = (
    (0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C),
    (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200B), (0x200E, 0x200F), (0x202A, 0x202E),
    (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFC),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0100, 0xE01EF),
)  # fmt: skip
INVISIBLE: Final = "".join(chr(code) for first, last in _INVISIBLE_RANGES for code in range(first, last + 1))
_JOINERS: Final = "\u200c\u200d"
_TAGS: Final = "".join(map(chr, range(0xE0000, 0xE0080)))
_BLACK_FLAG: Final = "\U0001f3f4"

_TABLE: Final = str.maketrans(
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


# Scripts that are written without spaces between words, and Hangul, whose particles follow a name without one: what
# stands beside such a character may be another word.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)


def normalize(text: str) -> str:
    """Return text as it is parsed: composed, without invisible marks, with plain spaces, quotes, dashes and letters.

    Case, line breaks and runs of spaces stay. A zero-width joiner or non-joiner inside a word stays.
    """
    if _PLAIN.fullmatch(text):
        return text
    plain = text.replace("\r\n", "\n").replace("\r", "\n").translate(_TABLE)
    if any(joiner in plain for joiner in _JOINERS):
        plain = "".join(_without_loose_joiners(plain))
    if any(map(plain.__contains__, _TAGS)):
        plain = "".join(_without_loose_tags(plain))
    return unicodedata.normalize("NFC", plain)


def fold(text: str) -> str:
    """Return text as it is compared: normalized, every run of spaces as one, without case. Its ends stay."""
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
    """Return a name as it is compared: of a person, a bot, a command or a choice; also without space around it."""
    return " ".join(fold(name).split())


def numeric(word: str) -> str:
    """Return a word as numbers and dates are read: normalized, with the digits of all scripts as ASCII."""
    word = normalize(word).strip()
    if word.isascii():
        return word
    digits = (unicodedata.decimal(char, None) for char in word)
    plain = (char if digit is None else str(digit) for char, digit in zip(word, digits, strict=True))
    return "".join(plain).replace("\u066b", ".").replace("\u066c", "")  # the Arabic decimal and thousands separators


def find_match(typed: str, named: Iterable[tuple[str, T]]) -> tuple[str, T] | None:
    """Return the one that was typed: as it is written if there is one, else the first that compares equal."""
    pairs = tuple(named)
    wanted = fold_name(typed)
    same = next((pair for pair in pairs if pair[0] == typed), None)
    return same or next((pair for pair in pairs if fold_name(pair[0]) == wanted), None)


def is_blank(text: str) -> bool:
    """Return whether text shows nothing: spaces and invisible marks only."""
    return not text or not normalize(text).strip()


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
    # "Bot" may stand right beside a letter of a script without spaces; within such a script nobody can tell.
    return bool(_UNSPACED.match(before)) != bool(_UNSPACED.match(after)) and not unicodedata.combining(after)


def is_unspaced(char: str) -> bool:
    """Return whether a character belongs to a script that is written without spaces."""
    return _UNSPACED.match(char) is not None


class Normalized:
    """Normalized text that knows where its characters stand in the original.

    Args:
        original: what the person typed.

    Attributes:
        text: what `normalize` makes of it.
    """

    __slots__ = ("_starts", "original", "text")

    def __init__(self, original: str) -> None:
        self.original = original
        self.text = normalize(original)
        self._starts: list[int] | None = None if self.text == original else _starts_of(original, self.text)

    def original_at(self, at: int) -> int:
        """Return where in the original the character at this place of the normalized text begins."""
        return at if self._starts is None else self._starts[at]

    def normalized_at(self, at: int) -> int:
        """Return the first place of the normalized text that stands at or behind this place of the original."""
        return at if self._starts is None else bisect_left(self._starts, at)


def _starts_of(original: str, text: str) -> list[int]:
    """Return, for each character of the normalized text, where it begins in the original; and the original's end.

    Normalization is local: no cluster (a character with all that may compose with it) changes another, except that
    joiners and tags depend on what stands around them. They are found again by what came of them.
    """
    starts: list[int] = []
    for first, last in _clusters(original):
        cluster = original[first:last]
        made = normalize(cluster)
        if cluster[-1] in _JOINERS or cluster[0] in _JOINERS or cluster[0] in _TAGS or cluster[-1] in _TAGS:
            made = _as_made(cluster, text, len(starts))
        starts += [first] * len(made)
    if len(starts) != len(text):  # never seen; a wrong place would cut a word, the ends are always right
        starts = [min(at, len(original)) for at in range(len(text))]
    return [*starts, len(original)]


def _as_made(cluster: str, text: str, at: int) -> str:
    """Return what has become of a cluster that holds joiners or tags: as much of it as stands in the text there."""
    kept = ""
    for char in unicodedata.normalize("NFC", cluster.translate(_TABLE)):
        if text[at + len(kept) : at + len(kept) + 1] == char:
            kept += char
    return kept


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    first = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or not _joins(text[at - 1], text[at]):
            yield first, at
            first = at


def _joins(before: str, char: str) -> bool:
    """Whether it composes with what is before it (marks, vowels and final consonants of Hangul), or is not seen."""
    if char < "\u0300":
        return before == "\r" and char == "\n"
    return _is_mark(char) or "\u1160" <= char <= "\u11ff" or char in INVISIBLE


def _without_loose_joiners(text: str) -> Iterator[str]:
    """Keep joiners between two characters of a word, or of an emoji."""
    for at, char in enumerate(text):
        if char not in _JOINERS or (0 < at < len(text) - 1 and _is_joined(text[at - 1]) and _is_joined(text[at + 1])):
            yield char


def _without_loose_tags(text: str) -> Iterator[str]:
    """Keep the tags that make the flag of a region."""
    is_flag = False
    for char in text:
        is_tag = char in _TAGS
        if not is_tag or is_flag:
            yield char
        is_flag = char == _BLACK_FLAG or (is_flag and is_tag)


def _is_of_word(char: str) -> bool:
    return char == "_" or char.isalnum() or _is_mark(char)


def _is_joined(char: str) -> bool:
    return _is_of_word(char) or unicodedata.category(char) in ("So", "Sk")


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _collapsed(text: str) -> str:
    return re.sub(" {2,}", " ", text) if "  " in text else text
