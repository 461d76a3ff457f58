"""Text normalization: `normalize_text` defines which texts are equal, `words` defines what a word is.

Duplicates are found by the normalized text. Diversity and overlap are measured on words.

Case, spacing, Unicode variants and the punctuation of prose do not count. What changes the meaning of a number, a
formula or a line of code does: operators, signs, exponents, decimal points, factorials, and brackets beside a name or
an operator.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

_MAX_CHARACTERS = 5_000  # metrics read only the first characters of a text, up to this number

_OPERATORS = r"+*/=<>^|&~%\u00ac\u00b1\u00d7\u00f7\u2190-\u22ff"
_OPERATOR = re.compile(rf"[{_OPERATORS}]")
_LETTER = "a-zα-ω"  # of names in formulas and code

_OPERAND = rf"(?:\d|[{_LETTER}](?!\w)|[(\[\\])"
_MINUS = re.compile(
    rf"""[-–] (?:
        (?<=[\d)\]}}][-–]) (?={_OPERAND})             # 3-4
        | (?<=\b[{_LETTER}][-–]) (?={_OPERAND})       # a-b
        | (?<=[\d)\]}}]\ [-–]) (?=\ )                # 3 - x
        | (?<=\b[{_LETTER}]\ [-–]) (?=\ )            # a - x
        | (?<=\ [-–]) (?=\ {_OPERAND})               # x - 3
        | (?<![\w)\]}}\-]-) -* (?=[\w(\[\\]|\.\d)   # -x  --x  -.5
        | (?<![\w)\]}}][-–]) (?=\.?\d)              # –5
        | (?<=[{_OPERATORS}][-–]) | (?=[{_OPERATORS}])
    )""",
    re.VERBOSE,
)
"""A hyphen or an en dash is a minus sign between two operands (in spaces: beside one), before an operand, and beside an
operator. It becomes U+2212, which is an operator. Other hyphens join words and are separators."""

_EMOTICONS = re.compile(r"[:;]['-]?(?:(\()|\))")

_EXCEPTIONS = re.compile(r"[][(){}!_\\]|[.:](?=\d)|'(?=\()")  # without one of these, all punctuation is removed

_SEPARATORS = r"""(?: (?=[][(){{}}!_\\.:'\-\s\x00-\x1f\x7f",;?`{more}]) (?:
    [-\s\x00-\x1f\x7f",;?`{more}]
    | (?<!{factor}) (?<!{factor}\)) ! (?!\ =) (?! (?<!\w!) [\w(\[])                  # 5!  (n-1)!  !=  !x
    | (?<![{letter}\d_)\]}}'!(\[{{]) (?<![{operators}]\ ) [(\[{{]+                    # f(x)  2 * (a + b)
    | (?<![)\]}}]) [)\]}}]++ (?! (?: \ [{operators}] | [{letter}\d(\[{{] | (?<={factor}\))!))  # (a + b) * 2  (n-1)!
    | \. (?: (?!\d) | (?<=[^\W\d]\.) | (?<=\.\.))                                     # 3.5  .5
    | : (?: (?!\d) | (?<!\d:))                                                        # 10:30
    | _ (?: (?![^\W_]) | (?<![^\W_]_))                                                # a_b
    | \\ (?![^\W\d_])                                                                 # \n
    | ' (?: (?!\() | (?<!\w'))                                                        # f'(x)
))+"""
"""Each line is a character that is removed, with its exceptions. The first line makes it fast."""

_PLAIN_SEPARATORS = r"[][(){{}}!_\\.:'\-\s\x00-\x1f\x7f\",;?`{more}]+"
_BRACKETS = re.compile(r"[][(){}]")
_SPACE_IN_BRACKETS = re.compile(r"(?<=[\[({]) +| +(?=[])}])")

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
"""Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: each character counts as a word."""


@lru_cache(maxsize=64)  # several filters compare the same text
def normalize_text(text: str) -> str:
    """The text without case, spacing, Unicode variants and the punctuation of prose.

    “The Café, at 10:30.” becomes `the café at 10:30`, and 10² becomes `10 ^ 2`.

    A text with only punctuation keeps it, so that two such texts can differ.
    """
    is_ascii = text.isascii()
    folded = plain = " ".join((text.lower() if is_ascii else _fold(text)).split())
    if _EMOTICONS.search(plain):
        plain = _EMOTICONS.sub(lambda match: " \u2639 " if match[1] else " \u263a ", plain)
    if "-" in plain or "–" in plain:
        plain = _MINUS.sub(lambda match: "\u2212" * len(match[0]), plain)
    if _OPERATOR.search(plain):
        plain = " ".join(_OPERATOR.sub(r" \g<0> ", plain).split())
    separators, all_separators = _separators(is_ascii=is_ascii)
    while _EXCEPTIONS.search(plain):
        previous, plain = plain, separators.sub(" ", _SPACE_IN_BRACKETS.sub("", plain)).strip()
        if plain == previous:  # else an exception may have lost the neighbor that made it one
            return plain or folded or text.strip()
    return all_separators.sub(" ", plain).strip() or folded or text.strip()


def words(text: str, limit: int | None = _MAX_CHARACTERS) -> list[str]:
    """The normalized words of the first `limit` characters of a text, in order. Operators and brackets are words."""
    plain = normalize_text(text if limit is None else text[:limit])
    plain = _BRACKETS.sub(r" \g<0> ", plain)
    return (plain if plain.isascii() else _UNSPACED.sub(r" \g<0> ", plain)).split()


@cache
def _separators(*, is_ascii: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Two patterns of separators: without those that are exceptions in `_SEPARATORS`, and with all."""
    # \W would match the vowel signs of Hindi and Thai. There is no punctuation beyond U+1FFFF.
    more = "" if is_ascii else re.escape("".join(_unicode_characters()[0]))
    factor = rf"(?:\d|\b[{_LETTER}])"
    with_exceptions = _SEPARATORS.format(more=more, letter=_LETTER, operators=_OPERATORS, factor=factor)
    return re.compile(with_exceptions, re.VERBOSE), re.compile(_PLAIN_SEPARATORS.format(more=more))


@cache
def _unicode_characters() -> tuple[list[str], dict[int, str | None], re.Pattern[str]]:
    """The punctuation and spaces beyond ASCII; invisible characters and their replacements; superscripts."""
    characters = list(map(chr, range(0x80, 0x20000)))
    category = {c: unicodedata.category(c) for c in characters}
    meaningful = "\u2030\u2031\u2032\u2033\u2034\u2057"  # per mille and primes
    separators = [c for c in characters if category[c][0] in "PZ" and c not in meaningful]
    removed: dict[int, str | None] = {ord(c): None for c in characters if category[c] == "Cf"}
    removed |= dict.fromkeys(range(0xFE00, 0xFE10))  # variants of a symbol
    removed |= {0x200B: " ", 0x2010: "-", 0x2011: "-", 0x2012: "–", 0x2018: "'", 0x2019: "'"}
    superscripts = [c for c in characters if unicodedata.decomposition(c).startswith("<super>")]
    return separators, removed, re.compile(f"[{''.join(superscripts)}]+")


def _fold(text: str) -> str:
    """The text without case and Unicode variants. `10²` becomes `10^2`, and `1½` becomes `1 1/2`."""
    _, removed, superscripts = _unicode_characters()
    text = superscripts.sub(r"^\g<0>", text.translate(removed))
    text = re.sub("[\u00bc-\u00be\u2150-\u215e\u2189]", r" \g<0>", text)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text.replace("\u2044", "/")
