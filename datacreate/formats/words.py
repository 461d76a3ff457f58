"""Splits texts into words: for metrics, near-duplicates and n-grams."""

from __future__ import annotations

import re

from datacreate.formats.text_normalization import normalised

MAX_CHARACTERS = 5_000
"""Characters of a text that metrics look at."""

# Thai, Lao, Burmese, Khmer, kana, Han: written without spaces, so each character counts as a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)


def words(text: str, limit: int | None = MAX_CHARACTERS) -> list[str]:
    """The words of the first `limit` characters in order, without case and punctuation."""
    plain = normalised(text if limit is None else text[:limit])
    return (plain if plain.isascii() else _UNSPACED.sub(r" \g<0> ", plain)).split()
