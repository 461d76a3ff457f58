"""Finds the options, the answer and what it means among the fields of one example; refuses what would be misread."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    dotted,
    field_at,
    fields_of,
    one_line,
    value_at,
)
from datacreate.formats.options import FormatOptions, named_field
from datacreate.formats.roles import FIRST_CODES, Roles, codes, first_code, label_key
from datacreate.formats.schema_utils import Schema, fixed_labels, with_field
from datacreate.formats.text_normalization import words

_MAX_LABEL_LENGTH = 60
"""A longer answer is a text, even if it occurs again."""

MAX_FOUND_LABELS = 50
"""Most labels that are found among answers."""

_USUAL_REPEATS = 3
"""With so many examples for each label, a label that occurs once is unusual."""

_CHAT_ROLES = ("system", "user", "assistant", "human", "gpt")

OPTIONS_NAMES = (
    "options choices candidates alternatives answers endings 选项 optionen opciones opções варианты"
).split()


def find_options(
    lists: Mapping[FieldPath, list[Json]],
    scalars: Mapping[FieldPath, Json],
    answer: FieldPath | None,
    given: FieldPath | None,
) -> tuple[FieldPath | None, FieldPath | None, FieldPath | None]:
    """The fields of options, keys and answer. Raises ExampleError for options without the answer."""
    answers = [answer] if answer else list(scalars)
    ordered = [given] if given and given in lists else sort_by_name(lists, OPTIONS_NAMES)
    for path in ordered:
        for keys, listed in lists.items():  # letters or numbers of the options, in a list beside them
            are_keys = (
                keys[:-1] == path[:-1] and len(listed) == len(lists[path]) and first_code(listed) is not None
            )
            found = next((p for p in answers if scalars.get(p) in listed), None)
            if found and are_keys and first_code(lists[path]) is None:
                return path, keys, found
    for path in ordered:
        values, named = lists[path], path == given or path[-1].casefold() in OPTIONS_NAMES
        texts = [str(v).casefold() for v in values if not isinstance(v, dict | list)]
        by_value = next((p for p in answers if p in scalars and str(scalars[p]).casefold() in texts), None)
        if by_value and (
            named or (len(set(texts)) == len(values) and all(isinstance(v, str) for v in values))
        ):
            return path, None, by_value
        value = scalars.get(answer) if answer else None
        if named and any(_is_code(value, first, len(values)) for first in FIRST_CODES):
            return path, None, answer
        if named and not by_value and isinstance(value, str) and len(value) > 1 and not value.isdigit():
            raise ExampleError(
                f"{dotted(answer or ())}: {value!r} is not among {dotted(path)}; fix the example"
            )
    return None, None, answer


def label_set(answers: Sequence[Json]) -> list[Json] | None:
    """The different answers in order, if they are labels: short, one of them given again, and few; None otherwise.

    Whole numbers are labels only if they count from 0: others are a scale of which some values may be missing.
    """
    found = list(dict.fromkeys(answers)) if all(isinstance(each, str | int) for each in answers) else []
    if len(found) == len(answers) or not few_labels(len(found), len(answers)):
        return None
    if all(str(each).removeprefix("-").isdecimal() for each in found):
        are_labels = sorted(map(int, found)) == list(range(len(found)))
    else:
        are_labels = all(isinstance(x, str) and 0 < len(x.strip()) <= _MAX_LABEL_LENGTH for x in found)
    return found if are_labels else None


def few_labels(number: int, rows: int) -> bool:
    """Whether so many different answers are a set of labels, and not words of their own in each row."""
    return 2 <= number <= max(2, min(MAX_FOUND_LABELS, rows // 2))


def rare_labels(path: FieldPath, examples: Sequence[Example]) -> list[str]:
    """Notes about a label that occurs once among many examples: it may be misspelt."""
    answers = [(value_at(each.values, path), each.where) for each in examples]
    counts = Counter(label_key(answer) for answer, _ in answers)
    if len(examples) < _USUAL_REPEATS * len(counts):
        return []
    return [
        f"{where}{one_line(str(answer))!r} occurs once; correct it if it is no label of its own"
        for answer, where in answers
        if counts[label_key(answer)] == 1
    ]


def with_codes(
    schema: Schema, roles: Roles, example: Example, rows: Sequence[Mapping[str, Json]]
) -> tuple[Schema, str]:
    """The schema with the positions or letters that the answer can have, and a remark if one example leaves it open."""
    answer, options = value_at(example.values, roles.answer), value_at(example.values, roles.options)
    number = len(options)
    if str(answer).casefold() in [str(option).casefold() for option in options]:
        return schema, ""
    fitting = [first for first in FIRST_CODES if _is_code(answer, first, number)]
    for row in rows:
        listed = value_at(row, roles.options)
        size = len(listed) if isinstance(listed, list) else number
        remaining = [first for first in fitting if _is_code(value_at(row, roles.answer), first, size)]
        fitting = remaining or fitting
    if not fitting:
        return schema, ""
    first, path = fitting[0], roles.answer or ()
    name, schema = dotted(path), with_field(schema, path, {"enum": codes(first, number)})
    if len(fitting) == 1:
        return schema, ""
    right, others = options[codes(first, number).index(answer)], ",".join(map(str, codes(fitting[1], number)))
    return schema, (
        f"; {name} {answer} is taken for {one_line(str(right))!r}, counted from 0; "
        f"if it counts from 1, add --labels {name}={others}"
    )


def _is_code(answer: Json, first: Json, number: int) -> bool:
    return type(answer) is type(first) and answer in codes(first, number)


def find_answer_start(fields: Mapping[FieldPath, Json]) -> tuple[FieldPath, FieldPath, FieldPath] | None:
    """The fields of an extractive answer, of where it starts, and of its context, as in SQuAD."""
    for path, start in fields.items():
        beside = [each for each in fields if path[-1] == "answer_start" and each[:-1] == path[:-1]]
        for answer in (each for each in beside if each != path):
            for context, text in fields.items():
                if context != answer and isinstance(text, str) and _starts_at(fields[answer], start, text):
                    return answer, path, context
    return None


def _starts_at(answer: Json, start: Json, context: str) -> bool:
    """Whether a text, or each text of a list, is in the context where `start` says."""
    texts, starts = ([value] if not isinstance(value, list) else value for value in (answer, start))
    return len(texts) == len(starts) > 0 and all(
        isinstance(text, str) and isinstance(at, int) and text and context[at : at + len(text)] == text
        for text, at in zip(texts, starts, strict=True)
    )


def sort_by_name(fields: Iterable[FieldPath], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first, in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(path[-1].casefold(), len(names)))


def find_named(fields: Iterable[FieldPath], names: list[str]) -> FieldPath | None:
    paths = sort_by_name(fields, names)
    return paths[0] if paths and paths[0][-1].casefold() in names else None


# Layouts and options that would be misread


def check_options(example: Example, options: FormatOptions) -> None:
    """Raise UsageError if a field is given two roles, or if the field of --options has no list."""
    named = Counter(filter(None, (*options.inputs, options.answer, options.options, *options.ignore)))
    if repeated := [name for name, times in named.items() if times > 1]:
        raise UsageError(
            f"{repeated[0]} is named twice in --inputs, --answer, --options and --ignore; name it once"
        )
    if options.options:
        value = field_at(example.values, named_field(example, options.options, "--options"))
        if not isinstance(value, list) or len(value) < 2:
            raise UsageError(
                f"--options {options.options}: the example has no list of two or more values there; "
                "write the options as a list"
            )


def check_layout(
    example: Example, options: FormatOptions, answer: FieldPath | None, scalars: Mapping[FieldPath, Json]
) -> None:
    """Raise ExampleError for a layout that would be misread; without `answer` any of the scalars may be the answer."""
    answers = {answer: scalars[answer]} if answer is not None and answer in scalars else scalars
    ignored = [tuple(name.split(".")) for name in options.ignore]
    for path, value in [((), example.values), *fields_of(example.values)]:
        if any(path[: len(each)] == each for each in ignored):
            continue
        are_options = options.options == ".".join(path) or (path and path[-1].casefold() in OPTIONS_NAMES)
        names: list[Json] = []
        if isinstance(value, Mapping) and (are_options or answer in scalars):
            texts = {(*path, key): key for key, part in value.items() if isinstance(part, str) and part}
            names = [key for where, key in texts.items() if where not in answers]
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            _check_messages(path, value)
            if are_options:
                names = [part for item in value for part in item.values()]
                names += [code for first in FIRST_CODES for code in codes(first, len(value))]
        for where, one in answers.items():
            if not isinstance(one, bool) and one in names and len(names) > 1:
                raise ExampleError(
                    f"{dotted(where)}: {one_line(repr(one))} names an option that is a field or an object of "
                    f"{dotted(path) or 'the example'}; write the options as a list of texts, and letters as another"
                )


def _check_messages(path: FieldPath, items: list[Json]) -> None:
    """Refuse messages that are not a conversation of user and assistant at the top level."""
    kinds = (("role", "content"), ("from", "value"))
    role = next((role for role, text in kinds if {role, text} <= items[0].keys()), None)
    if role is None:
        return
    are_chat = all(item.get(role) in _CHAT_ROLES and not item.get("tool_calls") for item in items)
    if not are_chat or path[-1] in ("prompt", "chosen", "rejected"):
        raise ExampleError(
            f"{dotted(path)}: only conversations of system, user and assistant can be created and checked; remove the "
            "messages of tools; write prompt, chosen and rejected as texts"
        )


def check_answer_values(roles: Roles, own: Schema, example: Example) -> None:
    """Raise UsageError if the values given for an answer are not the positions, letters or keys of the options."""
    answer, options = (field_at(example.values, path or ()) for path in (roles.answer, roles.options))
    labels, keys = list(fixed_labels(own) or ()), value_at(example.values, roles.keys)
    is_text = not keys and str(answer).casefold() in [str(option).casefold() for option in options]
    are_codes = first_code(labels) is not None and len(labels) == len(options)
    if not (is_text or (labels == keys if keys else are_codes)):
        raise UsageError(
            f"--labels or --range for {dotted(roles.answer or ())}: it says which of the {len(options)} options in "
            f"{dotted(roles.options or ())} is right; give the position, letter or key of each, in their order"
        )


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


def yes_no_labels(value: str, texts: Iterable[str]) -> tuple[str, str] | None:
    """The two answers of which `value` is one, in its case, in the language of the `texts`; None if it is neither."""
    answer = unicodedata.normalize("NFC", value)
    found: list[tuple[tuple[str, str], set[str]]] = []
    for pairs, frequent in _LANGUAGES:
        for pair in pairs.split():
            for change_case in (str.lower, str.capitalize, str.upper):
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
