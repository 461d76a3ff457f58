"""Finds the possible answers: keys of the options, or labels. Tells the user how to name labels.

Labels are answers that repeat in several examples, yes and no in many languages, and entailment, neutral and
contradiction.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from datacreate.errors import UsageError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    dotted,
    field_at,
    leaf_values,
    one_line,
    value_at,
    values_in,
)
from datacreate.formats.roles import FIRST_KEYS, Roles, canonical_label, first_key_in, is_option_key, option_keys
from datacreate.formats.schema_utils import Schema, fixed_labels, schema_at, with_field
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words

MAX_LABEL_LENGTH = 60  # a longer answer is a text, even if it occurs again
MAX_FOUND_LABELS = 50  # the most labels that are inferred from answers; more are given with --labels
_SHOWN_LABELS = 5  # a warning shows at most this many labels
_USUAL_REPEATS = 3  # with this many examples for each label, a label that occurs once is unusual

_LABEL_NAMES = (
    "label labels class category topic type sentiment emotion stance intent verdict stars rating score 标签 標籤 "
    "etiqueta étiquette rótulo метка мітка ラベル etiket nhãn 라벨 레이블 etichetta etykieta etikett štítek ετικέτα"
).split()
"""The usual names of a field with one of a few values, not with an answer in words."""

_NLI = ("entailment", "neutral", "contradiction")


def with_option_keys(
    schema: Schema,
    roles: Roles,
    answer_field: FieldPath,
    values: Mapping[str, Json],
    rows: Sequence[Mapping[str, Json]],
    declared: Collection[FieldPath],
) -> tuple[Schema, str]:
    """Set the possible values of the answer field of a format with options.

    An answer that is a key gets all keys as `enum`. Options that are labels (yes and no) become a constant of all
    examples. `values` are those of the first example; `rows` show where positions start. Returns the schema, and a
    remark for the user if the rows leave open where positions start, else "". Raises UsageError if the answer has
    declared values that are not the keys of the options.
    """
    answer, options, keys = (value_at(values, path) for path in (answer_field, roles.options, roles.keys))
    labels = list(fixed_labels(schema_at(schema, answer_field)) or ())
    texts = {str(option).casefold() for option in options}
    is_key, remark = bool(keys) or str(answer).casefold() not in texts, ""
    if is_key and answer_field in declared:
        are_keys = first_key_in(labels) is not None and len(labels) == len(options)
        if not (labels == keys if keys else are_keys):
            raise UsageError(
                f"--labels or --range for {dotted(answer_field)}: it says which of the {len(options)} options in "
                f"{dotted(roles.options or ())} is right; give the position, letter or key of each, in their order"
            )
    elif is_key and not keys:
        first_keys = _possible_first_keys(roles, rows, answer, len(options))
        possible_answers = [option_keys(first, len(options)) for first in first_keys]
        if possible_answers:
            schema = with_field(schema, answer_field, {"enum": possible_answers[0]})
        if len(possible_answers) > 1:
            right, name = options[possible_answers[0].index(answer)], dotted(answer_field)
            remark = (
                f"{name} {answer} is taken for {one_line(str(right))!r}, counted from 0; if it counts from 1, "
                f"add {labels_option(name, possible_answers[1])}"
            )
    if texts == {str(label).casefold() for label in labels} or are_yes_no(texts) or isinstance(answer, bool):
        schema = with_field(schema, roles.options or (), {"const": options})
        if answer_field not in declared and answer in options:
            schema = with_field(schema, answer_field, {**schema_at(schema, answer_field), "enum": options})
    return schema, remark


def _possible_first_keys(roles: Roles, rows: Iterable[Mapping[str, Json]], answer: Json, count: int) -> list[Json]:
    """The values that the key of the first of `count` options can have, so that `answer` is one of the keys.

    The answers of other rows decide between several. The answer 1 of two options leaves 0 and 1; an answer 0 of another
    row excludes 1. A row that excludes all is left out. Empty if the answer is not a key.
    """
    possible = [first for first in FIRST_KEYS if is_option_key(answer, first, count)]
    for row in rows:
        options = value_at(row, roles.options)
        size = len(options) if isinstance(options, list) else count
        possible = [first for first in possible if is_option_key(value_at(row, roles.answer), first, size)] or possible
    return possible


def with_labels(
    schema: Schema, roles: Roles, answer: FieldPath, all_values: Sequence[Mapping[str, Json]], *, all_are_spans: bool
) -> Schema:
    """Set the labels of the answer field of a format without options, if the answers of all examples are labels.

    Labels are yes and no, those of natural language inference, or answers that repeat and are not spans of the context.
    Without labels the schema stays the same, but a list of extractive answers gets its greatest length.
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
            labels = None if all_are_spans else find_labels(answers)
    return with_field(schema, answer, {**answer_schema, "enum": list(labels)}) if labels else schema


def find_labels(answers: Sequence[Json]) -> list[Json] | None:
    """The different answers in the order of their first use, if they are labels; else None.

    Labels are short, few, and at least one occurs again: `["spam", "ham", "spam"]` gives `["spam", "ham"]`. Whole
    numbers are labels only if they count from 0: others are a scale of which some values may be missing.
    """
    labels = list(dict.fromkeys(answers)) if all(isinstance(answer, str | int) for answer in answers) else []
    if len(labels) == len(answers) or not few_labels(len(labels), len(answers)):
        return None
    if all(str(label).removeprefix("-").isdecimal() for label in labels):
        are_labels = sorted(map(int, labels)) == list(range(len(labels)))
    else:
        are_labels = all(isinstance(label, str) and 0 < len(label.strip()) <= MAX_LABEL_LENGTH for label in labels)
    return labels if are_labels else None


def few_labels(count: int, rows: int) -> bool:
    """Whether `count` different answers in `rows` rows are few enough to be labels: at most half as many, or two."""
    return 2 <= count <= max(2, min(MAX_FOUND_LABELS, rows // 2))


def nli_labels(value: str, inputs: Sequence[FieldPath]) -> tuple[str, ...] | None:
    """Entailment, neutral and contradiction in the case of `value`, which is one of them; None for another value."""
    if value.lower() == "neutral" and not any(path[-1] in ("premise", "hypothesis") for path in inputs):
        return None  # a sentiment, perhaps
    return next((labels for labels in _cases(_NLI) if value in labels), None)


def _cases(labels: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The labels in lower case, capitalized and in upper case."""
    return (tuple(map(change_case, labels)) for change_case in (str.lower, str.capitalize, str.upper))


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
"""The answers in pairs, and frequent words that tell languages with a common answer apart ("no", "ja", "falso")."""

_PAIRS = [(pair.split("/"), set(frequent.split())) for pairs, frequent in _LANGUAGES for pair in pairs.split()]


def yes_no_labels(value: str, texts: Iterable[str]) -> tuple[str, str] | None:
    """The two answers of a yes/no question, if `value` is one of them: `("ja", "nein")` for `ja`; else None.

    They are written in the case of `value`, and in the language of the `texts` if it has the same word as others.
    """
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


def folded_name(path: FieldPath) -> str:
    """The name of a field as the lists of usual names write it."""
    return unicodedata.normalize("NFC", path[-1]).casefold().replace(" ", "_")


def is_label_name(path: FieldPath | None) -> bool:
    """Whether a field has the name of a label, such as `category`, not that of an answer in words."""
    return path is not None and folded_name(path) in _LABEL_NAMES


def unknown_labels_warning(task_format: TaskFormat, all_values: Sequence[Mapping[str, Json]]) -> str | None:
    """A warning if the answers look like labels, by the name of their field or because they repeat, but are not."""
    answer = task_format.roles.answer
    if answer is None or task_format.labels or schema_at(task_format.schema, answer).get("type") != "string":
        return None
    answers = [text for values in all_values if (text := value_at(values, answer))]
    labels, name = list(dict.fromkeys(answers)), dotted(answer)
    are_short = all(len(label) <= MAX_LABEL_LENGTH and label.isprintable() for label in labels)
    if not labels or not are_short or not (is_label_name(answer) or 3 * len(labels) <= 2 * len(answers)):
        return None
    known = ", ".join(labels[:_SHOWN_LABELS]) + (", ..." if labels[_SHOWN_LABELS:] else "")
    known_values = f"one value of {name} is" if len(labels) == 1 else f"{len(labels)} values of {name} are"
    return (
        f"warning: only {known_values} known ({known}); the model will invent others. If it has a fixed set of values, "
        f"name all: {labels_option(name, [*labels[:_SHOWN_LABELS], '...'])}"
    )


def notes_about_labels(
    task_format: TaskFormat, declared: Collection[FieldPath], examples: Sequence[Example]
) -> list[str]:
    """Notes for the user: declared labels of other fields, and an inferred label that occurs once, perhaps misspelt."""
    answer = task_format.roles.answer
    if answer is not None and answer in declared:
        beside = ", ".join(dotted(path) for path in declared if path != answer)
        return [f"only the answer, {dotted(answer)}, is balanced and verified, not {beside}"] if beside else []
    answers = [value_at(example.values, answer) for example in examples] if task_format.labels else []
    counts = Counter(map(canonical_label, answers))
    if len(answers) < _USUAL_REPEATS * len(counts):
        return []
    return [
        f"{example.where}{one_line(str(answer))!r} occurs once; correct it if it is not a separate label"
        for example, answer in zip(examples, answers, strict=False)
        if counts[canonical_label(answer)] == 1
    ]


def advice(task_format: TaskFormat, all_values: Sequence[Mapping[str, Json]]) -> str:
    """A sentence for the user with the option that would change the labels of the answer; "" if none would."""
    answer = task_format.roles.answer
    if answer is not None:
        value = field_at(all_values[0], answer)
        has_objects = isinstance(value, list) and any(isinstance(part, dict) for part in value)
        if has_objects or isinstance(value, bool | float):
            return ""
        option = _label_option(answer, [value_at(values, answer) for values in all_values])
        start = "for other labels" if task_format.labels else f"if {dotted(answer)} has a fixed set of values,"
        return f"{start} add {option}"
    name_answer = "if a field is the answer, add --answer FIELD"
    scalars = [path for path, value in leaf_values(all_values[0]) if isinstance(value, str | int | float)]
    for path in scalars:
        field_values = [value_at(values, path) for values in all_values]
        if find_labels(field_values):
            return f"{name_answer}; if {dotted(path)} is a label, add {_label_option(path, field_values)}"
    return f"{name_answer}; for a field with fixed values add --labels FIELD=a,b,c" if len(scalars) > 1 else ""


def _label_option(path: FieldPath, field_values: Sequence[Json]) -> str:
    """The option that makes a field with these values a label: `--labels mood=good,bad`, for a message."""
    labels = list(dict.fromkeys(map(str, field_values)))
    types = {type(part) for value in field_values for part in (value if isinstance(value, list) else [value])}
    if types in ({int}, {float}):
        return "--range " + shlex.quote(f"{dotted(path)}=LOW..HIGH")
    if types == {bool}:
        labels = ["true", "false"]
    elif len(labels) not in range(2, MAX_FOUND_LABELS + 1):
        labels = ["a", "b", "c"]
    return labels_option(dotted(path), labels)


def labels_option(name: str, labels: Iterable[Json]) -> str:
    """`--labels` with these values, or with a,b,c if one of them has a comma; quoted for a shell if needed."""
    texts = [str(label) for label in labels]
    if any("," in text or not text.isprintable() for text in texts):
        texts = ["a", "b", "c"]
    return "--labels " + shlex.quote(f"{name}={','.join(texts)}")
