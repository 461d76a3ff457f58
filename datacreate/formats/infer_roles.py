"""Finds the role of each field of an example by names and values, and refuses examples that would be misread."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from datacreate.errors import ExampleError, UsageError
from datacreate.formats import FormatOptions, as_tuple, named_field
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    canonical_json,
    dotted,
    field_at,
    fields_of,
    leaf_values,
    one_line,
    values_in,
)
from datacreate.formats.infer_labels import folded_name, is_label_name, yes_no_labels
from datacreate.formats.roles import FIRST_KEYS, Roles, first_key_in, is_option_key, option_keys
from datacreate.formats.rules import is_extracted, speaker_field
from datacreate.formats.schema_utils import is_number

_ANSWER_NAMES = (
    "label labels answer answers output response completion target class category sentiment emotion stance intent gold "
    "verdict correct stars rating score summary translation answerkey answer_key "
    "答案 标签 回答 antwort respuesta etiqueta réponse étiquette resposta ответ метка "
    "標籤 उत्तर जवाब جواب إجابة الإجابة উত্তর reponse rótulo jawaban 答え 解答 正解 ラベル cevap yanıt etiket "
    "trả_lời câu_trả_lời đáp_án nhãn 답 정답 답변 대답 라벨 레이블 risposta etichetta پاسخ odpowiedź etykieta "
    "antwoord คำตอบ відповідь мітка svar etikett odpověď štítek απάντηση ετικέτα"
).split()
_OPTIONS_NAMES = (
    "options choices candidates alternatives answers endings 选项 optionen opciones opções варианты"
).split()
_CONTEXT_NAMES = (
    "context passage premise document article paragraph story abstract background 上下文 文章 kontext contexto contexte"
).split()
_METADATA_NAMES = "id _id idx uid uuid guid qid url source meta metadata license split dataset".split()

_LONGEST_METADATA = 200  # characters; a longer text is content, whatever its name
_MAX_LETTERS = 26
_CHAT_ROLES = ("system", "user", "assistant", "human", "gpt")

_NAME_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_START_NAMES = {"start", "begin", "offset", "from", "position", "pos"}
_END_NAMES = {"end", "stop", "to"}
_LENGTH_NAMES = {"length", "len"}
_SPAN_NAMES = {"span", "spans", "offset", "offsets", "position", "positions"}
_CERTAIN_NAMES = set(
    "span spans offset offsets answer answers entity entities mention mentions token char character".split()
)
"""Parts of the names of fields that say where a text is in another one, such as `charStart` and `end_offset`. With one
of the last ones it is certain."""


def infer_roles(
    example: Example, format_options: FormatOptions, declared: Collection[FieldPath], *, is_written: bool = True
) -> Roles:
    """Decide what each field of an example is for: as the user says, else by the names and values of the fields.

    `declared` are the fields with --labels or --range. The inputs are left empty unless the user names them.
    From `{"id": 7, "question": "Which flies?", "choices": ["fish", "bird"], "answer": 1}` follows
    `Roles(options=("choices",), answer=("answer",), ignored=(("id",),))`.

    Raises UsageError if the user names a field that does not suit its role, and ExampleError if the answer is not among
    the options, or if options or messages are written in a way that would be misread.
    """
    named, values = _named_roles(example, format_options), example.values
    fields = {path: v for path, v in leaf_values(values) if path not in (*named.inputs, *named.ignored)}
    scalars = {path: v for path, v in fields.items() if v not in (None, "") and not isinstance(v, list)}

    roles = named if named.answer else replace(named, answer=_find_answer(fields, scalars, declared))
    _refuse_misleading(example, roles, {path: v for path, v in scalars.items() if path not in declared})
    extractive = None if declared else _with_extractive_answer(roles, fields, named.answer or ())
    problem, is_certain = find_positions(example, extractive or roles)
    if is_certain and is_written and not named.inputs:
        raise ExampleError(problem)
    roles = extractive or _find_options(roles, fields, scalars)
    others = {path: value for path, value in fields.items() if path not in (roles.options, roles.keys)}
    contents = {path: value for path, value in others.items() if any(values_in(value))}
    is_only_text = len(scalars) == 1 and isinstance(scalars.get(roles.answer or ()), str)
    if is_only_text and not (named.answer or named.inputs or roles.answer in declared or _has_label(roles, contents)):
        roles = replace(roles, answer=None)  # the only text is what the model writes, not an answer to something
    if named.inputs or any(not is_metadata(path[0], values) for path in contents if path != roles.answer):
        used = {path[0] for path in (roles.answer, roles.options, *declared, *named.inputs, *named.ignored) if path}
        metadata = ((name,) for name in values if name not in used and is_metadata(name, values))
        roles = replace(roles, ignored=(*named.ignored, *metadata))
    return replace(roles, context=roles.context or _find_context(roles, scalars))


def _has_label(roles: Roles, contents: Mapping[FieldPath, Json]) -> bool:
    """Whether the answer is a label of other contents by its name, or belongs to a conversation."""
    others = [value for path, value in contents.items() if path != roles.answer]
    return bool(others) and (is_label_name(roles.answer) or any(map(speaker_field, others)))


def is_metadata(name: str, values: Mapping[str, Json]) -> bool:
    """Whether a field at the top level says where an example comes from, not what it is about."""
    if name == "source" and not values.keys().isdisjoint(("target", "summary", "translation")):
        return False
    has_usual_name = name.casefold() in _METADATA_NAMES or name.casefold().endswith("_id")
    return has_usual_name and len(canonical_json(values[name])) <= _LONGEST_METADATA


def _named_roles(example: Example, format_options: FormatOptions) -> Roles:
    """The roles of the fields that the user names with --inputs, --answer, --options and --ignore.

    Raises UsageError if a field does not exist or is named twice, or if the options are not a list of several values.
    """
    role_of_option = {"inputs": "inputs", "answer": "answer", "options": "options", "ignore": "ignored"}
    named = {
        role: [
            named_field(example, name, f"--{option}")
            for name in filter(None, as_tuple(getattr(format_options, option)))
        ]
        for option, role in role_of_option.items()
    }
    counts = Counter(path for paths in named.values() for path in paths)
    if repeated := [dotted(path) for path, count in counts.items() if count > 1]:
        raise UsageError(f"{repeated[0]} is named twice in --inputs, --answer, --options and --ignore; name it once")
    for path in named["options"]:
        value = field_at(example.values, path)
        if not isinstance(value, list) or len(value) < 2:
            raise UsageError(
                f"--options {dotted(path)}: the example has no list of two or more values there; "
                "write the options as a list"
            )
    return Roles.of(named)


def _find_answer(
    fields: Mapping[FieldPath, Json], scalars: Mapping[FieldPath, Json], declared: Collection[FieldPath]
) -> FieldPath | None:
    """The field that is probably the answer: one with declared values, or one with a usual name."""
    if declared:
        return _find_named(declared, _ANSWER_NAMES) or next(iter(declared))
    # Inside an object a boolean or a yes/no text can mean anything: it would be assigned and verified as the label.
    candidates = [
        path
        for path, value in scalars.items()
        if len(path) == 1 or not (isinstance(value, bool) or yes_no_labels(str(value), ()))
    ]
    lists = (path for path, value in fields.items() if isinstance(value, list) and value and scalars)
    names = {"".join(path).casefold() for path in fields if len(path) == 1}
    is_pair = {"q", "a"} <= names and "b" not in names  # a question and its answer, not an option
    answer_names = [*_ANSWER_NAMES, "a"] if is_pair else _ANSWER_NAMES
    return _find_named(candidates, answer_names) or _find_named(lists, answer_names)


def _with_extractive_answer(roles: Roles, fields: Mapping[FieldPath, Json], named: FieldPath) -> Roles | None:
    """The roles with an extractive answer, the position where it starts, and its context, as in SQuAD.

    None if no field named `answer_start` has the position of a text beside it in another text. The text is in the field
    or object that the user `named` as the answer, if not ().
    """
    for start in (path for path in fields if path[-1] == "answer_start"):
        siblings = (p for p in fields if p[:-1] == start[:-1] and p != start and p[: len(named)] == named)
        for answer, context in product(siblings, fields):
            text, passage = fields[answer], fields[context]
            texts = text if isinstance(text, list) else [text]
            are_texts = isinstance(passage, str) and all(isinstance(part, str) and part for part in texts)
            has_start = answer != context and bool(texts) and fields[start] is not None
            if are_texts and has_start and is_extracted(text, passage, fields[start]):
                return replace(roles, answer=answer, answer_start=start, context=context)
    return None


def find_positions(example: Example, roles: Roles) -> tuple[str, bool]:
    """What is wrong with positions of spans in a text or in tokens, "" if there are none; whether they certainly are.

    A single pair of numbers may fit whole words by chance: then the names of the fields decide.
    """
    ignored = {path[0] for path in roles.ignored}
    values = {k: v for k, v in example.values.items() if k not in ignored and not is_metadata(k, example.values)}
    texts = values_in(values)
    tokens = [value for path, value in fields_of(values) if path[-1] in ("tokens", "words") and isinstance(value, list)]
    fits: defaultdict[tuple[str, bool], list[bool]] = defaultdict(list)  # fields, whether the end is inclusive
    for names, start, end, text, is_inclusive in _positions_in(values, ()):
        are_words = any(_are_words(each, start, end, text) for each in texts)
        are_tokens = not text and any(0 <= start < end <= len(each) for each in tokens)
        is_computed = bool(text and roles.answer_start)
        # The same text beside the position is as certain as two positions.
        fits[names, is_inclusive] += [not is_computed and (are_words or are_tokens)] * (2 if text else 1)
    # Numbers of another kind, such as hours or the cells of a table, fit by chance, but not all of them.
    fitting = {names: len(found) for (names, _), found in fits.items() if all(found)}
    certain = [names for names, count in fitting.items() if count > 1 or _name_parts(names) & _CERTAIN_NAMES]
    names = next(iter(certain or fitting), "")
    return names and (
        f"{names}: models do not count characters or words, so that positions would be wrong; write the text as tokens "
        "with a tag for each, or each span as a text without positions; if these are not positions, name the inputs "
        "with --inputs FIELD"
    ), bool(certain)


def _are_words(context: str, start: int, end: int, text: str) -> bool:
    """Whether whole words of the context are there: `text`, if it is not empty."""
    if not 0 <= start < end <= len(context) or (start, end) == (0, len(context)):
        return False
    span, before, after = context[start:end], context[:start][-1:], context[end : end + 1]
    cuts_a_word = (span[0].isalnum() and before.isalnum()) or (span[-1].isalnum() and after.isalnum())
    return span == (text or span.strip()) and not cuts_a_word


def _positions_in(value: Json, path: FieldPath) -> Iterator[tuple[str, int, int, str, bool]]:
    """All that may be a span in the field at `path`: the names of its fields, start, end, text or "", inclusive or not.

    Inclusive: the end is the position of the last character. A span is `{"start": 0, "end": 4}`,
    `{"offset": 0, "length": 4}`, `{"start": 0, "text": "Rome"}`, `[0, 4, "LOC"]`, or the first one of
    `{"start": [0, 9], "end": [4, 12]}`.
    """
    if isinstance(value, list):
        has_name = _name_parts(path[-1]) & _SPAN_NAMES or any(isinstance(part, str) for part in value)
        if has_name and [type(part) for part in value[:2]] == [int, int]:
            yield dotted(path), value[0], value[1], "", False
        for part in value:
            yield from _positions_in(part, path)
    if not isinstance(value, Mapping):
        return
    firsts = {key: part[0] if isinstance(part, list) and part else part for key, part in value.items()}
    numbers = {key: _name_parts(key) for key, first in firsts.items() if type(first) is int}
    starts = [
        key for key, parts in numbers.items() if parts & _START_NAMES and not parts & (_END_NAMES | _LENGTH_NAMES)
    ]
    for start_name, other_name in product(starts, firsts):
        start, other, parts = firsts[start_name], firsts[other_name], numbers.get(other_name, set())
        names = f"{dotted((*path, start_name))}, {dotted((*path, other_name))}"
        if parts & _END_NAMES:
            yield names, start, other, "", False
            yield names, start, other + 1, "", True  # the end is the position of the last character
        elif parts & _LENGTH_NAMES:
            yield names, start, start + other, "", False
        elif isinstance(other, str) and other and numbers[start_name] & {"start", "begin", "offset"}:
            yield names, start, start + len(other), other, False
    for key, part in value.items():
        yield from _positions_in(part, (*path, key))


def _name_parts(name: str) -> set[str]:
    """The words that a name consists of, as `char` and `start` for `charStart` and `char_start`."""
    return {part.lower() for part in _NAME_PART.findall(name)}


def _find_options(roles: Roles, fields: Mapping[FieldPath, Json], scalars: Mapping[FieldPath, Json]) -> Roles:
    """The roles with the list of options, and with the answer that is one of them; unchanged without such a list.

    The answer can be the text of an option or its key. Any field may be the answer if `roles` has none.
    Raises ExampleError if a field named like options does not contain the answer.
    """
    lists = {path: value for path, value in fields.items() if isinstance(value, list) and len(value) > 1}
    answers = [roles.answer] if roles.answer else list(scalars)
    candidates = [roles.options] if roles.options else _sort_by_name(lists, _OPTIONS_NAMES)
    for path in candidates:
        if with_keys := _with_list_of_keys(roles, path, lists, {answer: scalars.get(answer) for answer in answers}):
            return with_keys
    for path in candidates:
        options, is_named = lists[path], are_named_options(path, roles)
        has_keys = are_named_options(path[:-1], roles) and bool(_lists_of_keys(path, lists))
        texts = [str(option).casefold() for option in options if not isinstance(option, dict | list)]
        by_text = next((p for p in answers if p in scalars and str(scalars[p]).casefold() in texts), None)
        are_different = len(set(texts)) == len(options) and all(isinstance(option, str) for option in options)
        if by_text and (is_named or are_different):
            return replace(roles, options=path, answer=by_text)
        if not (is_named or has_keys) or roles.answer is None:
            continue
        value = scalars.get(roles.answer)
        if not has_keys and any(is_option_key(value, first, len(options)) for first in FIRST_KEYS):
            return replace(roles, options=path)
        is_rating = roles.options is None and _is_rating(roles.answer, value)
        if (isinstance(value, str) or is_number(value)) and not is_rating:
            raise ExampleError(
                f"{dotted(roles.answer)}: {value!r} is not among {dotted(path)}, and no position or letter of one; fix "
                "the example, or name its inputs with --inputs if these are not answers to choose from"
            )
    return roles


def _with_list_of_keys(
    roles: Roles, options: FieldPath, lists: Mapping[FieldPath, list[Json]], answers: Mapping[FieldPath, Json]
) -> Roles | None:
    """The roles with these options, a list of their keys beside them, and the one of `answers` that is a key.

    In `{"choices": {"text": ["fish", "bird"], "label": ["A", "B"]}, "answerKey": "B"}` the keys are `choices.label`.
    None if there is no such list.
    """
    for path in _lists_of_keys(options, lists):
        if answer := next((field for field, value in answers.items() if value in lists[path]), None):
            return replace(roles, options=options, keys=path, answer=answer)
    return None


def _lists_of_keys(options: FieldPath, lists: Mapping[FieldPath, list[Json]]) -> list[FieldPath]:
    """The lists beside the options that have a key for each of them; none if the options are keys themselves."""
    if first_key_in(lists[options]) is not None:
        return []
    same_size = [path for path, keys in lists.items() if len(keys) == len(lists[options])]
    return [path for path in same_size if path[:-1] == options[:-1] and first_key_in(lists[path]) is not None]


def _is_rating(answer: FieldPath, value: Json) -> bool:
    """Whether the answer is a number that says nothing of options: a decimal, or in a field for ratings or classes."""
    if isinstance(value, float) and not value.is_integer():
        return True
    names = ("stars", "rating", "score", "category", "class", "topic", "type")
    return folded_name(answer) in names and str(value).replace(".", "").isdecimal()


def _find_context(roles: Roles, scalars: Mapping[FieldPath, Json]) -> FieldPath | None:
    """The input with a usual name of a passage; None if there is only one input. Texts without a role are inputs."""
    texts = (path for path, value in scalars.items() if isinstance(value, str) and path != roles.answer)
    inputs = roles.inputs or [path for path in texts if path[:1] not in roles.ignored]
    return _find_named(inputs, _CONTEXT_NAMES) if len(inputs) > 1 else None


def _sort_by_name(fields: Iterable[FieldPath], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first, in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(folded_name(path), len(names)))


def _find_named(fields: Iterable[FieldPath], names: list[str]) -> FieldPath | None:
    """The field with the first of the names that a field has."""
    return next((path for path in _sort_by_name(fields, names) if folded_name(path) in names), None)


def are_named_options(path: FieldPath, roles: Roles) -> bool:
    """Whether the user names this field as the options, or its name says that it has them."""
    return path == roles.options or (path != () and folded_name(path) in _OPTIONS_NAMES)


def _refuse_misleading(example: Example, roles: Roles, scalars: Mapping[FieldPath, Json]) -> None:
    """Raise ExampleError for messages that are not a conversation, and for options that are not a list of texts.

    `scalars` are the fields that may say which option is right if `roles` has no answer.
    """
    answers = {path: value for path, value in scalars.items() if path == roles.answer} or scalars
    for path, value in [((), example.values), *fields_of(example.values)]:
        if not any(path[: len(ignored)] == ignored for ignored in roles.ignored):
            _refuse_messages(path, value)
            _refuse_option_fields(path, value, roles, answers)
            _refuse_option_objects(path, value, roles, answers)


def _refuse_messages(path: FieldPath, value: Json) -> None:
    """Raise ExampleError for messages that are not a conversation of user and assistant; other values are accepted."""
    role = speaker_field(value)
    if role is None:
        return
    are_chat = all(item.get(role) in _CHAT_ROLES and not item.get("tool_calls") for item in value)
    is_preference = path[-1] in ("prompt", "chosen", "rejected")
    if is_preference or not are_chat:
        advice = "remove the messages and calls of tools, or write query, tools and call (--format function_call)"
        raise ExampleError(
            f"{dotted(path)}: only conversations of system, user and assistant can be created and checked; "
            + ("write prompt, chosen and rejected as texts" if is_preference else advice)
        )


def _refuse_option_fields(path: FieldPath, value: Json, roles: Roles, answers: Mapping[FieldPath, Json]) -> None:
    """Raise ExampleError if an answer names a field of this object: `{"A": "fish", "B": "bird"}`."""
    is_known = roles.answer in answers
    if not isinstance(value, Mapping) or not (is_known or are_named_options(path, roles)):
        return
    names: list[Json] = [key for key, part in value.items() if isinstance(part, str) and part]
    names = [key for key in names if (*path, key) not in answers]
    letters = [key for key in names if len(key) == 1]
    if is_known and not is_label_name(roles.answer) and len(letters) > 1 and first_key_in(letters) is not None:
        names += option_keys(letters[0], _MAX_LETTERS)  # also letters of options that do not exist
    _refuse_named_option(path, names, answers)


def _refuse_option_objects(path: FieldPath, value: Json, roles: Roles, answers: Mapping[FieldPath, Json]) -> None:
    """Raise ExampleError if an answer names an object of this list: `[{"id": 7, "text": "fish"}, {"id": 8, ...}]`."""
    are_objects = isinstance(value, list) and value and all(isinstance(option, Mapping) for option in value)
    if not are_objects or not are_named_options(path, roles):
        return
    names = [part for option in value for part in option.values()]
    is_rating = any(_is_rating(field, answer) for field, answer in answers.items())
    may_be_key = roles.answer in answers and not is_rating and not is_label_name(roles.answer)
    count = max(len(value), _MAX_LETTERS if may_be_key else 0)  # also keys of options that do not exist
    names += [key for first in FIRST_KEYS for key in option_keys(first, count)]
    _refuse_named_option(path, names, answers)


def _refuse_named_option(path: FieldPath, names: list[Json], answers: Mapping[FieldPath, Json]) -> None:
    """Raise ExampleError if an answer is one of the names of several options in the field at `path`."""
    named = (field for field, text in answers.items() if not isinstance(text, bool) and text in names)
    if len(names) > 1 and (field := next(named, None)):
        raise ExampleError(
            f"{dotted(field)}: {one_line(repr(answers[field]))} names an option that is a field or an object of "
            f"{dotted(path) or 'the example'}; write the options as a list of texts, and letters as another"
        )
