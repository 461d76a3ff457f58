"""Finds the possible answers of an example.

They are positions or letters of its options, or labels: answers that repeat, yes and no in many languages, those of
natural language inference.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from datacreate.errors import UsageError
from datacreate.formats.example import FieldPath, Json, dotted, one_line, value_at, values_in
from datacreate.formats.roles import FIRST_CODES, Roles, codes, first_code, is_code
from datacreate.formats.schema_utils import Schema, fixed_labels, schema_at, with_field
from datacreate.formats.text_normalization import words

_MAX_LABEL_LENGTH = 60
"""A longer answer is a text, even if it occurs again."""

MAX_FOUND_LABELS = 50
"""Most labels that are found among answers."""

_NLI = ("entailment", "neutral", "contradiction")


def with_option_values(
    schema: Schema,
    roles: Roles,
    answer_field: FieldPath,
    values: Mapping[str, Json],
    rows: Sequence[Mapping[str, Json]],
    is_declared: bool,
) -> tuple[Schema, str]:
    """The schema with the positions or letters that say which option is right, or with options that are labels.

    `values` are those of the first example. With the schema comes a remark if the `rows` leave open where positions
    start. Raises UsageError if the declared values of the answer are not the positions, letters or keys of the options.
    """
    answer, options, keys = (value_at(values, path) for path in (answer_field, roles.options, roles.keys))
    labels = list(fixed_labels(schema_at(schema, answer_field)) or ())
    texts = {str(option).casefold() for option in options}
    is_text, remark = str(answer).casefold() in texts, ""
    if not is_declared and not is_text and not keys:
        fitting = _fitting_codes(roles, rows, answer, len(options))
        possible_answers = codes(fitting[0], len(options)) if fitting else []
        if possible_answers:
            schema = with_field(schema, answer_field, {"enum": possible_answers})
        if len(fitting) > 1:
            right, name = options[possible_answers.index(answer)], dotted(answer_field)
            remark = (
                f"{name} {answer} is taken for {one_line(str(right))!r}, counted from 0; if it counts from 1, "
                f"add --labels {name}={','.join(map(str, codes(fitting[1], len(options))))}"
            )
    elif is_declared and not (is_text and not keys):
        are_codes = first_code(labels) is not None and len(labels) == len(options)
        if not (labels == keys if keys else are_codes):
            raise UsageError(
                f"--labels or --range for {dotted(answer_field)}: it says which of the {len(options)} options in "
                f"{dotted(roles.options or ())} is right; give the position, letter or key of each, in their order"
            )
    if texts == {str(label).casefold() for label in labels} or are_yes_no(texts) or isinstance(answer, bool):
        schema = with_field(schema, roles.options or (), {"const": options})
        if not is_declared and answer in options:
            schema = with_field(schema, answer_field, {**schema_at(schema, answer_field), "enum": options})
    return schema, remark


def _fitting_codes(roles: Roles, rows: Iterable[Mapping[str, Json]], answer: Json, number: int) -> list[Json]:
    """The possible codes of the first of `number` options: those with which the answers of most rows are codes."""
    fitting = [first for first in FIRST_CODES if is_code(answer, first, number)]
    for row in rows:
        options = value_at(row, roles.options)
        size = len(options) if isinstance(options, list) else number
        fitting = [first for first in fitting if is_code(value_at(row, roles.answer), first, size)] or fitting
    return fitting


def with_labels(
    schema: Schema, roles: Roles, answer: FieldPath, all_values: Sequence[Mapping[str, Json]], all_are_spans: bool
) -> Schema:
    """The schema with the labels of the answer, if it has any, and the length of a list of extractive answers.

    Labels are yes and no, those of natural language inference, or few answers that are no spans.
    """
    answers, answer_schema = [value_at(values, answer) for values in all_values], schema_at(schema, answer)
    if roles.answer_start and "items" in answer_schema:
        longest = max(len(value or ()) for value in answers)
        return with_field(schema, answer, {**answer_schema, "maxItems": longest})
    labels: Sequence[Json] | None = None
    if answer_schema.get("type") in ("string", "integer"):
        if isinstance(answers[0], str) and len(answer) == 1:
            labels = yes_no_labels(answers[0], values_in(all_values[0])) or nli_labels(answers[0], roles.inputs)
        if not labels or not all(value in labels for value in answers):
            labels = None if all_are_spans else label_set(answers)
    return with_field(schema, answer, {**answer_schema, "enum": list(labels)}) if labels else schema


def label_set(answers: Sequence[Json]) -> list[Json] | None:
    """The different answers in order, if they are labels: short, one of them given again, and few; None otherwise.

    Whole numbers are labels only if they count from 0: others are a scale of which some values may be missing.
    """
    labels = list(dict.fromkeys(answers)) if all(isinstance(answer, str | int) for answer in answers) else []
    if len(labels) == len(answers) or not few_labels(len(labels), len(answers)):
        return None
    if all(str(label).removeprefix("-").isdecimal() for label in labels):
        are_labels = sorted(map(int, labels)) == list(range(len(labels)))
    else:
        are_labels = all(isinstance(label, str) and 0 < len(label.strip()) <= _MAX_LABEL_LENGTH for label in labels)
    return labels if are_labels else None


def few_labels(number: int, rows: int) -> bool:
    """Whether so many different answers are a set of labels, and not words of their own in each row."""
    return 2 <= number <= max(2, min(MAX_FOUND_LABELS, rows // 2))


def nli_labels(value: str, inputs: Sequence[FieldPath]) -> tuple[str, ...] | None:
    """The labels of natural language inference in the case of `value`; None if it is something else."""
    if value.lower() == "neutral" and not any(path[-1] in ("premise", "hypothesis") for path in inputs):
        return None  # a sentiment, perhaps
    return next((labels for labels in _cases(_NLI) if value in labels), None)


def _cases(labels: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The labels in lower case, capitalized and in upper case."""
    return (tuple(map(change_case, labels)) for change_case in (str.lower, str.capitalize, str.upper))


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


_PAIRS = [(pair.split("/"), set(frequent.split())) for pairs, frequent in _LANGUAGES for pair in pairs.split()]


def yes_no_labels(value: str, texts: Iterable[str]) -> tuple[str, str] | None:
    """The two answers of which `value` is one, in its case, in the language of the `texts`; None if it is neither."""
    answer = unicodedata.normalize("NFC", value)
    matches = [(labels, frequent) for pair, frequent in _PAIRS for labels in _cases(pair) if answer in labels]
    if not matches:
        return None
    used = {word for text in texts for word in words(text)}
    (yes, no), _ = max(matches, key=lambda match: len(match[1] & used))
    return (value, no) if answer == yes else (yes, value)


def are_yes_no(values: Iterable[str]) -> bool:
    """Whether the values are the two answers of a yes/no question, or English yes, no and maybe."""
    folded = {unicodedata.normalize("NFC", value).casefold() for value in values}
    return folded == {"yes", "no", "maybe"} or any(folded == set(map(str.casefold, pair)) for pair, _ in _PAIRS)
