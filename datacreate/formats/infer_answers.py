"""Finds answer, options and labels among the fields of one example; refuses layouts that would be misread."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import Example, FieldPath, Json, dotted, field_at, fields_of, one_line, value_at
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

_ANSWER_NAMES = (
    "label labels answer answers output response completion target class category sentiment emotion stance intent gold "
    "verdict correct stars rating score summary translation answerkey answer_key "
    "答案 标签 回答 antwort respuesta etiqueta réponse étiquette resposta ответ метка"
).split()
_OPTIONS_NAMES = (
    "options choices candidates alternatives answers endings 选项 optionen opciones opções варианты"
).split()

_NLI = ("entailment", "neutral", "contradiction")


def find_answer(
    fields: Mapping[FieldPath, Json], scalars: Mapping[FieldPath, Json], overridden: list[FieldPath]
) -> FieldPath | None:
    """The field that is probably the answer: one with declared values, or one with a usual name."""
    if overridden:
        return find_named(overridden, _ANSWER_NAMES) or overridden[0]
    # Inside an object a boolean or a yes/no text can mean anything: it would be assigned and verified as the label.
    candidates = [
        path
        for path, value in scalars.items()
        if len(path) == 1 or not (isinstance(value, bool) or yes_no_labels(str(value), ()))
    ]
    answer = find_named(candidates, _ANSWER_NAMES)
    if answer is None and scalars:
        lists = (path for path, value in fields.items() if isinstance(value, list) and value)
        answer = find_named(lists, _ANSWER_NAMES)
    return answer


def find_options(
    fields: Mapping[FieldPath, Json],
    scalars: Mapping[FieldPath, Json],
    answer: FieldPath | None,
    named_options: FieldPath | None,
) -> Roles:
    """The fields of options, keys and answer; options and keys are None if no list holds options.

    Without `answer`, any of the `scalars` may be it. Raises ExampleError for options without the answer.
    """
    lists = {path: value for path, value in fields.items() if isinstance(value, list) and len(value) > 1}
    answers = [answer] if answer else list(scalars)
    candidates = [named_options] if named_options else _sort_by_name(lists, _OPTIONS_NAMES)
    for path in candidates:
        if roles := _find_keys(path, lists, scalars, answers):
            return roles
    for path in candidates:
        options, is_named = lists[path], path == named_options or path[-1].casefold() in _OPTIONS_NAMES
        texts = [str(option).casefold() for option in options if not isinstance(option, dict | list)]
        by_text = next((p for p in answers if p in scalars and str(scalars[p]).casefold() in texts), None)
        are_different = len(set(texts)) == len(options) and all(isinstance(option, str) for option in options)
        if by_text and (is_named or are_different):
            return Roles(options=path, answer=by_text)
        if not is_named:
            continue
        value = scalars.get(answer) if answer else None
        if any(_is_code(value, first, len(options)) for first in FIRST_CODES):
            return Roles(options=path, answer=answer)
        if isinstance(value, str) and len(value) > 1 and not value.isdigit():
            raise ExampleError(f"{dotted(answer or ())}: {value!r} is not among {dotted(path)}; fix the example")
    return Roles(answer=answer)


def _find_keys(
    options: FieldPath,
    lists: Mapping[FieldPath, list[Json]],
    scalars: Mapping[FieldPath, Json],
    answers: Sequence[FieldPath],
) -> Roles | None:
    """The roles if a list beside the options has a letter or number for each, and an answer is one of these."""
    if first_code(lists[options]) is not None:
        return None
    for path, keys in lists.items():
        is_beside = path[:-1] == options[:-1] and len(keys) == len(lists[options])
        answer = next((field for field in answers if scalars.get(field) in keys), None)
        if answer and is_beside and first_code(keys) is not None:
            return Roles(options=options, keys=path, answer=answer)
    return None


def find_answer_start(fields: Mapping[FieldPath, Json]) -> Roles | None:
    """The fields of an extractive answer, of where it starts, and of its context, as in SQuAD; None without these."""
    for start in (path for path in fields if path[-1] == "answer_start"):
        siblings = (path for path in fields if path[:-1] == start[:-1] and path != start)
        for answer, context in product(siblings, fields):
            text = fields[context]
            if context != answer and isinstance(text, str) and _starts_at(fields[answer], fields[start], text):
                return Roles(answer=answer, answer_start=start, context=context)
    return None


def _starts_at(answer: Json, start: Json, context: str) -> bool:
    """Whether a text, or each text of a list, is in the context at the index `start`, or at those of a list."""
    texts, starts = (value if isinstance(value, list) else [value] for value in (answer, start))
    return len(texts) == len(starts) > 0 and all(
        isinstance(text, str) and isinstance(i, int) and text and context[i : i + len(text)] == text
        for text, i in zip(texts, starts, strict=True)
    )


def _sort_by_name(fields: Iterable[FieldPath], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first, in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(path[-1].casefold(), len(names)))


def find_named(fields: Iterable[FieldPath], names: list[str]) -> FieldPath | None:
    """The field with the first of the names that a field has."""
    paths = _sort_by_name(fields, names)
    return paths[0] if paths and paths[0][-1].casefold() in names else None


# Labels


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


def rare_labels(path: FieldPath, examples: Sequence[Example]) -> list[str]:
    """Notes about a label that occurs once among many examples: it may be misspelt."""
    answers = [value_at(example.values, path) for example in examples]
    counts = Counter(map(label_key, answers))
    if len(examples) < _USUAL_REPEATS * len(counts):
        return []
    return [
        f"{example.where}{one_line(str(answer))!r} occurs once; correct it if it is no label of its own"
        for example, answer in zip(examples, answers, strict=True)
        if counts[label_key(answer)] == 1
    ]


def nli_labels(value: str, inputs: Sequence[FieldPath]) -> tuple[str, ...] | None:
    """The labels of natural language inference in the case of `value`; None if it is something else."""
    if value.lower() == "neutral" and not any(path[-1] in ("premise", "hypothesis") for path in inputs):
        return None  # a sentiment, perhaps
    cases = (tuple(map(change_case, _NLI)) for change_case in (str.lower, str.capitalize, str.upper))
    return next((labels for labels in cases if value in labels), None)


def with_codes(
    schema: Schema, roles: Roles, example: Example, rows: Sequence[Mapping[str, Json]]
) -> tuple[Schema, str]:
    """The schema with the positions or letters that the answer can have, and a remark if the rows leave it open."""
    answer, options = value_at(example.values, roles.answer), value_at(example.values, roles.options)
    number = len(options)
    if str(answer).casefold() in [str(option).casefold() for option in options]:
        return schema, ""
    fitting = [first for first in FIRST_CODES if _is_code(answer, first, number)]
    for row in rows:
        row_options = value_at(row, roles.options)
        size = len(row_options) if isinstance(row_options, list) else number
        fitting_row = [first for first in fitting if _is_code(value_at(row, roles.answer), first, size)]
        fitting = fitting_row or fitting
    if not fitting:
        return schema, ""
    path, possible_answers = roles.answer or (), codes(fitting[0], number)
    schema = with_field(schema, path, {"enum": possible_answers})
    if len(fitting) == 1:
        return schema, ""
    right, labels = options[possible_answers.index(answer)], ",".join(map(str, codes(fitting[1], number)))
    return schema, (
        f"; {dotted(path)} {answer} is taken for {one_line(str(right))!r}, counted from 0; "
        f"if it counts from 1, add --labels {dotted(path)}={labels}"
    )


def _is_code(answer: Json, first: Json, number: int) -> bool:
    """Whether the answer is a code of one of `number` options, if `first` is the code of the first."""
    return type(answer) is type(first) and answer in codes(first, number)


# Layouts and options that would be misread


def check_options(example: Example, options: FormatOptions) -> None:
    """Raise UsageError if a field is given two roles, or if the field of --options has no list."""
    counts = Counter(filter(None, (*options.inputs, options.answer, options.options, *options.ignore)))
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise UsageError(f"{repeated[0]} is named twice in --inputs, --answer, --options and --ignore; name it once")
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
        if any(path[: len(other)] == other for other in ignored):
            continue
        are_options = options.options == ".".join(path) or (path and path[-1].casefold() in _OPTIONS_NAMES)
        names: list[Json] = []
        if isinstance(value, Mapping) and (are_options or answer in scalars):
            names = [
                key for key, part in value.items() if isinstance(part, str) and part and (*path, key) not in answers
            ]
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            _check_messages(path, value)
            names = _names_of_objects(value) if are_options else []
        named = (field for field, text in answers.items() if not isinstance(text, bool) and text in names)
        if len(names) > 1 and (field := next(named, None)):
            raise ExampleError(
                f"{dotted(field)}: {one_line(repr(answers[field]))} names an option that is a field or an object of "
                f"{dotted(path) or 'the example'}; write the options as a list of texts, and letters as another"
            )


def _names_of_objects(options: list[Json]) -> list[Json]:
    """The values by which an answer can name one of the options that are objects."""
    values = [part for option in options for part in option.values()]
    return values + [code for first in FIRST_CODES for code in codes(first, len(options))]


def _check_messages(path: FieldPath, items: list[Json]) -> None:
    """Refuse messages that are not a conversation of user and assistant at the top level."""
    layouts = (("role", "content"), ("from", "value"))
    role = next((role for role, text in layouts if {role, text} <= items[0].keys()), None)
    if role is None:
        return
    are_chat = all(item.get(role) in _CHAT_ROLES and not item.get("tool_calls") for item in items)
    if not are_chat or path[-1] in ("prompt", "chosen", "rejected"):
        raise ExampleError(
            f"{dotted(path)}: only conversations of system, user and assistant can be created and checked; remove the "
            "messages of tools; write prompt, chosen and rejected as texts"
        )


def check_answer_values(roles: Roles, answer_schema: Schema, example: Example) -> None:
    """Raise UsageError if the values declared for an answer are not the positions, letters or keys of the options."""
    answer, options = (field_at(example.values, path or ()) for path in (roles.answer, roles.options))
    labels, keys = list(fixed_labels(answer_schema) or ()), value_at(example.values, roles.keys)
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
    matches: list[tuple[list[str], set[str]]] = []
    for pairs, frequent in _LANGUAGES:
        for pair, change_case in product(pairs.split(), (str.lower, str.capitalize, str.upper)):
            labels = [change_case(label) for label in pair.split("/")]
            if answer in labels:
                matches.append((labels, set(frequent.split())))
    if not matches:
        return None
    used = {word for text in texts for word in words(text)}
    (yes, no), _ = max(matches, key=lambda match: len(match[1] & used))
    return (value, no) if answer == yes else (yes, value)


def are_yes_no(values: Iterable[str]) -> bool:
    """Whether the values are the two answers of a yes/no question, or English yes, no and maybe."""
    folded = {unicodedata.normalize("NFC", value).casefold() for value in values}
    pairs = [set(pair.casefold().split("/")) for language, _ in _LANGUAGES for pair in language.split()]
    return folded in [*pairs, {"yes", "no", "maybe"}]
