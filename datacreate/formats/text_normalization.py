"""Text normalization: `normalize_text` defines which texts are equal, `words` defines what a word is.

Duplicates are found by the normalized text. Diversity and overlap are measured on words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

MAX_CHARACTERS = 5_000
"""Metrics look only at so many characters of a text."""

# Punctuation and spaces are dropped; letters, marks, digits and symbols are kept. Some ASCII punctuation carries
# meaning and is kept: % & # * / @, and - before a digit (3-4 is not 3*4, and C# is not C).
_DROPPED_ASCII = r"\s\x00-\x1f\x7f!\"'(),.:;?\[\]\\`_{}"
_SEPARATORS = re.compile(rf"(?:[{_DROPPED_ASCII}]|-(?!\d))+")

# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: each character counts as a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)


def normalize_text(text: str) -> str:
    """The text without case, punctuation, spacing and Unicode variants.

    A text with only punctuation keeps it, so that two such texts can differ.
    """
    if text.isascii():
        return _SEPARATORS.sub(" ", text.lower()).strip() or text.strip()
    text = unicodedata.normalize("NFKC", text)
    folded = unicodedata.normalize("NFKC", text.casefold())
    return _unicode_separators().sub(" ", folded).strip() or text.strip()


def words(text: str, limit: int | None = MAX_CHARACTERS) -> list[str]:
    """The normalized words of the first `limit` characters of a text, in order."""
    plain = normalize_text(text if limit is None else text[:limit])
    return (plain if plain.isascii() else _UNSPACED.sub(r" \g<0> ", plain)).split()


@cache
def _unicode_separators() -> re.Pattern[str]:
    # \W would match the vowel signs of Hindi and Thai. There is no punctuation beyond U+1FFFF. Variation selectors
    # (U+FE00 to U+FE0F) only change how a symbol is drawn.
    dropped = [
        c
        for c in map(chr, range(0x80, 0x20000))
        if unicodedata.category(c)[0] in "PZ" or unicodedata.category(c) == "Cf"
    ]
    return re.compile(rf"(?:[{_DROPPED_ASCII}\ufe00-\ufe0f{re.escape(''.join(dropped))}]|-(?!\d))+")
