"""What "the same text" means: by this form copies and repeats are found."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Letters, marks, digits and symbols tell texts apart; punctuation and spaces do not. Of the ASCII
# characters that Unicode counts as punctuation, those that calculate and name (% & # * / @, and
# - before a digit) count as symbols: 3-4 is not 3*4, and C# is not C.
_DROPPED_ASCII = r"\s\x00-\x1f\x7f!\"'(),.:;?\[\]\\`_{}"
_SEPARATORS = re.compile(rf"(?:[{_DROPPED_ASCII}]|-(?!\d))+")


def normalised(text: str) -> str:
    """The text without case, punctuation, spacing and Unicode variants.

    A text of nothing but punctuation is kept as it is, so that two of them can differ.
    """
    if text.isascii():
        return _SEPARATORS.sub(" ", text.lower()).strip() or text.strip()
    text = unicodedata.normalize("NFKC", text)
    folded = unicodedata.normalize("NFKC", text.casefold())
    return _separators_of_all_scripts().sub(" ", folded).strip() or text.strip()


@cache
def _separators_of_all_scripts() -> re.Pattern[str]:
    # Not \W: that takes the vowel signs of Hindi or Thai for separators. U+1FFFF: beyond it there
    # is no punctuation; variation selectors (how a symbol is drawn) are marks and say nothing.
    dropped = [
        c
        for c in map(chr, range(0x80, 0x20000))
        if unicodedata.category(c)[0] in "PZ" or unicodedata.category(c) == "Cf"
    ]
    return re.compile(rf"(?:[{_DROPPED_ASCII}\ufe00-\ufe0f{re.escape(''.join(dropped))}]|-(?!\d))+")
