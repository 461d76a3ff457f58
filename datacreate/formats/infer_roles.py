"""Finds the role of each field of an example, by names and values; refuses layouts that would be misread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    canonical_json,
    dotted,
    field_at,
    fields_of,
    leaves_of,
    one_line,
)
from datacreate.formats.infer_labels import yes_no_labels
from datacreate.formats.options import FormatOptions, as_tuple, named_field
from datacreate.formats.roles import FIRST_CODES, Roles, codes, first_code, is_code
from datacreate.formats.rules import is_extracted

_ANSWER_NAMES = (
    "label labels answer answers output response completion target class category sentiment emotion stance intent gold "
    "verdict correct stars rating score summary translation answerkey answer_key "
    "答案 标签 回答 antwort respuesta etiqueta réponse étiquette resposta ответ метка"
).split()
_OPTIONS_NAMES = (
    "options choices candidates alternatives answers endings 选项 optionen opciones opções варианты"
).split()
_CONTEXT_NAMES = (
    "context passage premise document article paragraph story abstract background 上下文 文章 kontext contexto contexte"
).split()
_METADATA_NAMES = "id _id idx uid uuid guid qid url source meta metadata license split dataset".split()

_LONGEST_METADATA = 200
"""A longer text is content, whatever its name."""

_CHAT_ROLES = ("system", "user", "assistant", "human", "gpt")


def infer_roles(example: Example, settings: FormatOptions, declared: Collection[FieldPath]) -> Roles:
    """The roles of the fields; `inputs` are only those that the user names, `declared` have --labels or --range.

    Raises UsageError if the user names a field that does not suit its role, ExampleError for options without the answer
    and for layouts that would be misread.
    """
    values, named = example.values, _named_fields(example, settings)
    inputs, ignored = named["inputs"], named["ignore"]
    named_answer, named_options = (next(iter(named[option]), None) for option in ("answer", "options"))
    fields = {path: v for path, v in leaves_of(values) if path not in (*inputs, *ignored)}
    scalars = {path: v for path, v in fields.items() if v not in (None, "") and not isinstance(v, list)}

    answer = named_answer or _find_answer(fields, scalars, declared)
    possible_answers = {path: v for path, v in scalars.items() if path not in declared}
    _check_layout(example, answer, possible_answers, named_options, ignored)
    extractive = None if named_answer or declared else _find_answer_start(fields)
    roles = extractive or _find_options(fields, scalars, answer, named_options)
    answer = roles.answer
    is_only_text = len(scalars) == 1 and isinstance(scalars.get(answer or ()), str)
    if is_only_text and not (named_answer or answer in declared or inputs):
        answer = None  # a single text is what the model writes, not an answer to something
    if inputs or any(path != answer and not is_metadata(path[0], values) for path in scalars):
        used = {path[0] for path in (answer, roles.options, *declared, *inputs, *ignored) if path}
        ignored += tuple((name,) for name in values if name not in used and is_metadata(name, values))
    texts = [path for path, value in scalars.items() if isinstance(value, str) and path != answer]
    possible_inputs = list(inputs or (path for path in texts if path[:1] not in ignored))
    context = roles.context
    if context is None and len(possible_inputs) > 1:
        context = _find_named(possible_inputs, _CONTEXT_NAMES)
    return replace(
        roles, inputs=inputs, context=context, options=roles.options or named_options, answer=answer, ignored=ignored
    )


def is_metadata(name: str, values: Mapping[str, Json]) -> bool:
    """Whether a field at the top level says where an example comes from, not what it is about."""
    if name == "source" and not values.keys().isdisjoint(("target", "summary", "translation")):
        return False
    has_usual_name = name.casefold() in _METADATA_NAMES or name.casefold().endswith("_id")
    return has_usual_name and len(canonical_json(values[name])) <= _LONGEST_METADATA


def _named_fields(example: Example, settings: FormatOptions) -> dict[str, tuple[FieldPath, ...]]:
    """The fields that the user names, by option."""
    named = {
        option: tuple(
            named_field(example, name, f"--{option}") for name in filter(None, as_tuple(getattr(settings, option)))
        )
        for option in ("inputs", "answer", "options", "ignore")
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
    return named


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
    return _find_named(candidates, _ANSWER_NAMES) or _find_named(lists, _ANSWER_NAMES)


def _find_options(
    fields: Mapping[FieldPath, Json],
    scalars: Mapping[FieldPath, Json],
    answer: FieldPath | None,
    named_options: FieldPath | None,
) -> Roles:
    """The fields of options, keys and answer; options and keys are None if no list holds options.

    Without `answer`, any of the `scalars` may be it.
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
        if any(is_code(value, first, len(options)) for first in FIRST_CODES):
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


def _find_answer_start(fields: Mapping[FieldPath, Json]) -> Roles | None:
    """The fields of an extractive answer, of where it starts, and of its context, as in SQuAD; None without these."""
    for start in (path for path in fields if path[-1] == "answer_start"):
        siblings = (path for path in fields if path[:-1] == start[:-1] and path != start)
        for answer, context in product(siblings, fields):
            text, passage = fields[answer], fields[context]
            texts = text if isinstance(text, list) else [text]
            are_texts = isinstance(passage, str) and all(isinstance(part, str) and part for part in texts)
            has_start = answer != context and bool(texts) and fields[start] is not None
            if are_texts and has_start and is_extracted(text, passage, fields[start]):
                return Roles(answer=answer, answer_start=start, context=context)
    return None


def _sort_by_name(fields: Iterable[FieldPath], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first, in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(path[-1].casefold(), len(names)))


def _find_named(fields: Iterable[FieldPath], names: list[str]) -> FieldPath | None:
    """The field with the first of the names that a field has."""
    return next((path for path in _sort_by_name(fields, names) if path[-1].casefold() in names), None)


def _check_layout(
    example: Example,
    answer: FieldPath | None,
    scalars: Mapping[FieldPath, Json],
    named_options: FieldPath | None,
    ignored: Sequence[FieldPath],
) -> None:
    """Raise ExampleError for a layout that would be misread; without `answer` any of the scalars may be the answer."""
    answers = {answer: scalars[answer]} if answer is not None and answer in scalars else scalars
    for path, value in [((), example.values), *fields_of(example.values)]:
        if any(path[: len(other)] == other for other in ignored):
            continue
        are_options = path == named_options or (path and path[-1].casefold() in _OPTIONS_NAMES)
        names: list[Json] = []  # by which an answer can name one of the options that are fields or objects
        if isinstance(value, Mapping) and (are_options or answer in scalars):
            names = [
                key for key, part in value.items() if isinstance(part, str) and part and (*path, key) not in answers
            ]
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            _check_messages(path, value)
            if are_options:
                names = [part for option in value for part in option.values()]
                names += [code for first in FIRST_CODES for code in codes(first, len(value))]
        named = (field for field, text in answers.items() if not isinstance(text, bool) and text in names)
        if len(names) > 1 and (field := next(named, None)):
            raise ExampleError(
                f"{dotted(field)}: {one_line(repr(answers[field]))} names an option that is a field or an object of "
                f"{dotted(path) or 'the example'}; write the options as a list of texts, and letters as another"
            )


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
