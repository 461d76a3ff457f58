"""What a word is: by it wording, diversity and overlap are measured."""

from __future__ import annotations

import re

from datacreate.formats.text_normalization import normalised

MOST_CHARACTERS = 5_000
"""Of one text that are looked at: passages reach 50,000, and nothing here needs all of them."""

# Thai, Lao, Burmese, Khmer, kana, Han: written without spaces, so that a character stands for a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)


def words(text: str) -> list[str]:
    """The words of a text in order, without case and punctuation; scripts without spaces letter by letter."""
    plain = normalised(text[:MOST_CHARACTERS])
    return (plain if plain.isascii() else _UNSPACED.sub(r" \g<0> ", plain)).split()
