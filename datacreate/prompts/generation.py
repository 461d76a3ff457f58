"""Builds the generation prompt: (encoding, shown examples, number of examples) -> chat messages.

The wording was chosen by measurement; scripts/perf/creation.py repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from datacreate.formats.example import Example, FieldPath, Json, dotted, field_at, value_at
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.rules import Rule
from datacreate.formats.schema_utils import (
    Schema,
    constant_of,
    fixed_labels,
    is_constant,
    leaves,
    may_have_text,
    schema_at,
)
from datacreate.formats.task_format import TaskFormat

Message = dict[str, str]
"""A chat message: `role` and `content`."""

_SYSTEM = "You write data for training language models."


@dataclass(frozen=True)
class RequestContent:
    """What a request asks for besides the format."""

    instruction: str | None = None  # of the user, for all requests
    label_ratio: Mapping[str, float] | None = None  # shares that add up to 1; None if all labels are equal
    attributes: Mapping[str, str] = field(default_factory=dict)  # of this request
    passage: str | None = None  # of the user's documents: the context, or source material


def chat_prompt(
    encoding: PromptEncoding,
    shown: Sequence[Example],
    num_examples: int,
    content: RequestContent = RequestContent(),
) -> list[Message]:
    """The messages that ask for `num_examples` new examples similar to the first of `shown`, the parent.
    With none, the fields are described instead.

    Further examples come before the parent: those that several prompts have in common are then cached with the text
    before them.

    The instruction is in the system message, which is the same in all prompts of a run: servers cache it. The
    example is shown without spaces, as the grammar has the response written. With spaces, a small model deviates
    from its preferred tokens at every comma, and fewer of its examples are valid and new.
    """
    ordered = [*shown[1:], *shown[:1]]
    examples = [_compact(encoding.write(each)) for each in ordered]
    if encoding.style == "keyed":
        return _paper_prompt(examples[-1], num_examples)
    format, passage = encoding.format, content.passage
    number = f" {len(shown) + 1}" if format.context_is_given and shown else ""
    which = f"text{number}" if number else "this text"
    text = f"Text{number}:\n{passage}\n\n" if passage else ""
    values = "; ".join(f"{name}: {value}" for name, value in content.attributes.items())
    if shown:
        topics = f"about {which}" if passage else "" if values else "about other topics"
        different = f"but with {values}, and all different" if values else ""
        start = (
            f"{_contexts(format, ordered) if number else ''}Here is a JSON array with "
            f"{'one example' if len(shown) == 1 else f'{len(shown)} examples'}, written as {encoding.describe()}:\n"
            f"[{','.join(examples)}]\n\n{text}Write a JSON array of {num_examples} more examples in the same way, "
            f"{', '.join(filter(None, (topics, different)))}."
        )
    else:
        different = "all different" if passage or values else "all about different things"
        start = (
            f"{text}Write a JSON array of {num_examples} examples{f' about {which}' if passage else ''}, each "
            f"written as {_without_example(encoding, different)}{f' All of them have {values}.' if values else ''}"
        )
    options = " All options of an example differ from each other." if format.options_vary else ""
    fixed = "" if not shown and _answered_question(encoding) else _fixed_answers_sentence(format)
    user = (
        f"{start}{options}{fixed}{_label_ratio_sentence(encoding, content.label_ratio)}"
        f"{_layout_sentence(format, shown)}{_span_sentence(format, which)}"
    )
    system = "\n\n".join(filter(None, (_SYSTEM, content.instruction)))
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def merge_system_message(messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """The messages for a chat template without a system role: its text starts the user message."""
    if not messages or messages[0]["role"] != "system":
        return [dict(message) for message in messages]
    system, first, *rest = messages
    merged = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    return [merged, *(dict(message) for message in rest)]


def _contexts(format: TaskFormat, shown: Sequence[Example]) -> str:
    """The given contexts of the shown examples, in their order: they are no part of what is written."""
    contexts = [str(value_at(each.values, format.roles.context)) for each in shown]
    texts = "".join(f"Text {number}:\n{context}\n\n" for number, context in enumerate(contexts, 1))
    return texts if len(shown) == 1 else f"{texts}The examples below are about these texts, in this order. "


def _layout_sentence(format: TaskFormat, shown: Sequence[Example]) -> str:
    """What one example does not show: which answer is better, how many turns there are, which functions."""
    roles = format.roles
    if roles.rejected and roles.answer:
        return f" The {roles.answer[-1]} answer is right and helpful, the {roles.rejected[-1]} one wrong or useless."
    if roles.turns:
        turns = schema_at(format.schema, roles.turns)["maxItems"] // 2
        return f" The user writes {turns} messages in each, and each gets an answer." if turns > 1 else ""
    if roles.tags:
        sets = (schema_at(format.schema, path)["items"] for path in roles.tags)
        names = (", ".join(map(str, fixed_labels(tags) or ())) for tags in sets)
        return f" Each example is one sentence, and each token has a tag: {'; '.join(filter(None, names))}."
    if roles.tools:
        return f" Each calls one of these functions: {_compact(field_at(shown[0].values, roles.tools))}"
    return ""


def _fixed_answers_sentence(format: TaskFormat) -> str:
    """For an input named question with fixed labels: the question must be answerable with a label.

    Without this sentence, small models often write statements instead.
    """
    if (question := _question_with_labels(format)) is None:
        return ""
    choices = _listed(list(map(str, format.labels or ())), "or")
    return f" Each {dotted(question)} is one that {choices} alone answers."


def _question_with_labels(format: TaskFormat) -> FieldPath | None:
    """The input named question, if its answer is a fixed label."""
    question = next((path for path in format.roles.inputs if path[-1] == "question"), None)
    return question if format.labels and not format.roles.tools else None


def _answered_question(encoding: PromptEncoding) -> str | None:
    """The field of a question that is written after its label; None if there is none."""
    question = _question_with_labels(encoding.format)
    is_written = question and len(question) == 1 and not encoding.pseudo_labels
    return question[0] if question and is_written else None


def _span_sentence(format: TaskFormat, which: str) -> str:
    """Where a passage is given, what one example does not show: that the answer is a part of it."""
    is_span = format.context_is_given and Rule.ANSWER_IN_CONTEXT in format.rules
    return f" Each {dotted(format.roles.answer or ())} is a few words copied from {which}." if is_span else ""


def _label_ratio_sentence(encoding: PromptEncoding, label_ratio: Mapping[str, float] | None) -> str:
    """With pseudo-labels no request asks for a given label, so the prompt says how frequent each is."""
    answer, labels = encoding.format.roles.answer, encoding.format.labels
    if not (encoding.pseudo_labels and answer and labels):
        return ""
    names = list(map(str, labels))
    if label_ratio is None:
        return f" The {dotted(answer)} of each is one of {', '.join(names)}, each equally often."
    shares = ", ".join(f"{name} for {label_ratio[name]:.0%}" for name in names if label_ratio[name])
    return f" The {dotted(answer)} of the examples is {shares} of them."


def _paper_prompt(shown: str, num_examples: int) -> list[Message]:
    """The prompt of the paper: the example as an object, and a request for different answers."""
    user = (
        f"You generate question-answering data. Below is one example in JSON. Generate {num_examples} more examples "
        "with the same keys and the same format, all with different answers, as one JSON array.\n\n"
        f"Example:\n{shown}"
    )
    return [{"role": "user", "content": user}]


def describe_fields(encoding: PromptEncoding, without: str | None = None) -> str:
    """How an example is written, and what its fields can be, in sentences; `without` one of them.

    A text gets no words of its own: a small model writes `text` where the prompt says `body: text`.
    """
    fields, roles = encoding.field_schemas, encoding.format.roles
    described_by_sentences = [roles.options] if encoding.format.options_vary else []
    described_by_sentences += roles.inputs[:1] if roles.tags else ()
    values = {
        name: _words(part)
        for name, part in fields.items()
        if name != without and (name,) not in described_by_sentences
    }
    limits = "".join(f" The {name} is {words}." for name, words in values.items() if words)
    described = {(name,): part for name, part in fields.items()} | dict(leaves({"properties": fields}))
    about = "".join(
        f" The {dotted(path)}: {' '.join(part['description'].split()).rstrip('.')}."
        for path, part in described.items()
        if part.get("description")
    )
    return f"{encoding.describe()}.{limits}{about}"


def _without_example(encoding: PromptEncoding, different: str) -> str:
    """How an example is written, and a request for its texts. `different`: how the examples differ.

    Where a question has fixed labels, small models write the label as the question, unless the prompt says that it is a
    sentence.
    """
    question = _answered_question(encoding)
    worded = [
        name for name, part in encoding.field_schemas.items() if may_have_text(part) and name != question
    ]
    texts = f"a real {_listed(worded, 'and')}" if worded else ""
    if question:
        choices = _listed([_as_written(label) for label in encoding.format.labels or ()], "or")
        asked = f"a {question} as a whole sentence that someone would ask, and whose answer is the {choices} before it"
        request = f" In each, write {' and '.join(filter(None, (texts, asked)))}, {different}."
    else:
        request = f" Write {texts} in each, {different}." if texts else ""
    answer = (encoding.format.roles.answer or ("",))[0]
    return f"{describe_fields(encoding, answer if question else None)}{request}"


def _words(schema: Schema) -> str:
    """The values of a schema in words; empty for any text."""
    if is_constant(schema):
        return _as_written(constant_of(schema))
    if values := fixed_labels(schema):
        return f"one of {', '.join(map(_as_written, values))}"
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_words(branch) or "a text" for branch in branches)
    kind = schema.get("type")
    if kind in ("integer", "number"):
        bounds = _bounds(schema.get("minimum"), schema.get("maximum"))
        return f"a {'whole ' if kind == 'integer' else ''}number{bounds and f' of {bounds}'}"
    if parts := schema.get("properties"):
        return f"an object with {', '.join(_named(name, part) for name, part in parts.items())}"
    if prefix := schema.get("prefixItems"):
        return f"a list of {', then '.join(_words(part) or 'a text' for part in prefix)}"
    if "items" in schema:
        number, inner = _bounds(schema.get("minItems"), schema.get("maxItems")), _words(schema["items"])
        return f"a list of {number} {f'values, each {inner}' if inner else 'texts'}".replace("  ", " ")
    if pattern := schema.get("pattern"):
        return f"a text that matches {pattern}"
    if format := schema.get("format"):
        return f"a {format}"
    length = _bounds(schema.get("minLength"), schema.get("maxLength"))
    return f"a text of {length} characters" if length else ""


def _as_written(value: Json) -> str:
    """A value as the model writes it, a text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bounds(low: Json, high: Json) -> str:
    """`3 to 5`, `at least 3`, `at most 5`, or nothing."""
    if low is not None and high is not None:
        return str(low) if low == high else f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def _named(name: str, schema: Schema) -> str:
    """A field of an object, with its constant or what it can be."""
    words = _words(schema)
    return f"{name} {words}" if is_constant(schema) else f"{name} ({words})" if words else name


def _listed(words: Sequence[str], conjunction: str) -> str:
    """`a, b and c`."""
    return f" {conjunction} ".join(filter(None, (", ".join(words[:-1]), words[-1])))
