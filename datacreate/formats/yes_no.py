"""Recognizes the two answers of a yes/no question in many languages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from datacreate.formats.text_normalization import words

# The answers in pairs, and frequent words that tell languages with a common answer apart ("no", "ja", "falso").
_LANGUAGES: tuple[tuple[str, str], ...] = (
    ("yes/no true/false", "the is of and to a in"),  # English
    ("是/否 是/不是 对/错 對/錯 正确/错误 正確/錯誤 真/假", ""),  # Chinese
    ("हाँ/नहीं हां/नहीं सही/गलत सत्य/असत्य", ""),  # Hindi
    ("sí/no si/no verdadero/falso", "el la los es de que en una"),  # Spanish
    ("oui/non vrai/faux", ""),  # French
    ("نعم/لا صحيح/خطأ صح/خطأ", ""),  # Arabic
    ("হ্যাঁ/না সত্য/মিথ্যা", ""),  # Bengali
    ("sim/não verdadeiro/falso", "o os é de que em uma não"),  # Portuguese
    ("да/нет верно/неверно правда/ложь", ""),  # Russian
    ("ہاں/نہیں درست/غلط", ""),  # Urdu
    ("ya/tidak benar/salah", ""),  # Indonesian
    ("ja/nein wahr/falsch richtig/falsch", "der die das ist und ein eine"),  # German
    ("はい/いいえ 正しい/間違い 正しい/誤り", ""),  # Japanese
    ("evet/hayır doğru/yanlış", ""),  # Turkish
    ("có/không đúng/sai", ""),  # Vietnamese
    ("예/아니요 예/아니오 네/아니요 네/아니오 참/거짓", ""),  # Korean
    ("sì/no vero/falso", "il lo gli è di che un una"),  # Italian
    ("بله/خیر درست/نادرست", "است که از در به"),  # Persian
    ("tak/nie prawda/fałsz", ""),  # Polish
    ("ja/nee waar/onwaar juist/onjuist", "het een van de en is"),  # Dutch
    ("ใช่/ไม่ใช่ ถูก/ผิด จริง/เท็จ", ""),  # Thai
    ("так/ні", ""),  # Ukrainian
    ("ja/nej sant/falskt", "och är ett det att som"),  # Swedish
    ("ano/ne", ""),  # Czech
    ("ναι/όχι", ""),  # Greek
)

_CASES = (str.lower, str.capitalize, str.upper)


def yes_no_labels(value: str, texts: Iterable[str]) -> tuple[str, str] | None:
    """The two answers of which `value` is one, in its case; None if it is neither.

    If several languages have this answer, `texts` decide.
    """
    answer = unicodedata.normalize("NFC", value)
    found: list[tuple[tuple[str, str], set[str]]] = []
    for pairs, frequent in _LANGUAGES:
        for pair in pairs.split():
            for change_case in _CASES:
                yes, no = map(change_case, pair.split("/"))
                if answer in (yes, no):
                    found.append(((yes, no), set(frequent.split())))
    if not found:
        return None
    used = {word for text in texts for word in words(text)}
    (yes, no), _ = max(found, key=lambda language: len(language[1] & used))
    return (value, no) if answer == yes else (yes, value)


def are_yes_no(values: Iterable[str]) -> bool:
    """Whether the values are the two answers of a yes/no question, or English yes, no and maybe."""
    folded = {unicodedata.normalize("NFC", value).casefold() for value in values}
    pairs = [set(pair.casefold().split("/")) for language, _ in _LANGUAGES for pair in language.split()]
    return folded in [*pairs, {"yes", "no", "maybe"}]
