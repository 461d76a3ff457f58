"""Builds the prompt of a request: chat messages that show examples, or describe the fields, and ask for more.

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
    leaf_schemas,
    may_have_text,
    schema_at,
)
from datacreate.formats.task_format import TaskFormat

Message = dict[str, str]  # a chat message: `role` and `content`

_SYSTEM = "You write data for training language models."


@dataclass(frozen=True)
class RequestContent:
    """What a prompt says besides the format and the examples: what the new examples must be about."""

    instruction: str | None = None  # from the user, the same for all requests
    label_ratio: Mapping[str, float] | None = None  # shares that add up to 1; None for equal shares
    attributes: Mapping[str, str] = field(default_factory=dict)  # one value of each dimension
    passage: str | None = None  # from the user's documents: the context, or source material


def chat_prompt(
    encoding: PromptEncoding, shown: Sequence[Example], num_examples: int, content: RequestContent = RequestContent()
) -> list[Message]:
    """The messages that ask for `num_examples` new examples similar to the first of `shown`, the parent.

    Without examples, the fields are described instead. Further examples come before the parent: servers then cache
    those that several prompts have in common. They also cache the system message, which is the same in all prompts of a
    run and has the instruction.

    The examples are shown without spaces, so that the model writes its response like this, with fewer tokens.
    """
    if encoding.style == "keyed":
        return _paper_prompt(_compact(encoding.write(shown[0])), num_examples)
    task_format = encoding.format
    # Given contexts of the examples have the numbers before that of the passage.
    is_numbered = task_format.context_is_given and shown
    passage_name = f"text {len(shown) + 1}" if is_numbered else "this text"
    heading = passage_name.capitalize() if is_numbered else "Text"
    passage = f"{heading}:\n{content.passage}\n\n" if content.passage else ""
    about = f"about {passage_name}" if passage else ""
    attributes = "; ".join(f"{name}: {value}" for name, value in content.attributes.items())
    if shown:
        introduction = _introduction(encoding, [*shown[1:], shown[0]])
        request = _request_with_examples(num_examples, about, attributes)
    else:
        introduction = ""
        request = _request_without_example(encoding, num_examples, about, attributes)
    sentences = [
        introduction,
        passage,
        request,
        " All options of an example differ from each other." if task_format.options_vary else "",
        _fixed_answers_sentence(task_format) if shown or not _answered_question(encoding) else "",
        _label_ratio_sentence(encoding, content.label_ratio),
        _kind_sentence(task_format, shown),
        _span_sentence(task_format, passage_name),
    ]
    system = "\n\n".join(filter(None, (_SYSTEM, content.instruction)))
    return [{"role": "system", "content": system}, {"role": "user", "content": "".join(sentences)}]


def _introduction(encoding: PromptEncoding, shown: Sequence[Example]) -> str:
    """The examples, after their given contexts, which the written examples do not have."""
    count = "one example" if len(shown) == 1 else f"{len(shown)} examples"
    contexts = ""
    if encoding.format.context_is_given:
        texts = [str(value_at(example.values, encoding.format.roles.context)) for example in shown]
        contexts = "".join(f"Text {index}:\n{text}\n\n" for index, text in enumerate(texts, 1))
        contexts += "The examples below are about these texts, in this order. " if len(shown) > 1 else ""
    items = ",".join(_compact(encoding.write(example)) for example in shown)
    return f"{contexts}Here is a JSON array with {count}, written as {encoding.describe()}:\n[{items}]\n\n"


def _request_with_examples(num_examples: int, about: str, attributes: str) -> str:
    """The sentence that asks for more examples like those shown, with another topic, passage or attributes."""
    differences = filter(None, (about, attributes and f"but with {attributes}, and all different"))
    difference = ", ".join(differences) or "about other topics"
    return f"Write a JSON array of {num_examples} more examples in the same way, {difference}."


def _request_without_example(encoding: PromptEncoding, num_examples: int, about: str, attributes: str) -> str:
    """The sentences that describe the fields of an example, since none is shown, and ask for examples with them.

    Where a question has fixed labels, small models write the label as the question, unless the prompt says that it is a
    sentence.
    """
    different = "all different" if about or attributes else "all about different things"
    question, answer = _answered_question(encoding), (encoding.format.roles.answer or ("",))[0]
    fields = describe_fields(encoding, answer if question else None)
    names = [name for name, part in encoding.field_schemas.items() if may_have_text(part) and name != question]
    texts = [f"a real {_listed(names, 'and')}"] if names else []
    if question:
        labels = _listed([_as_written(label) for label in encoding.format.labels or ()], "or")
        sentence = f"a whole sentence that someone would ask, and whose answer is the {labels} before it"
        wording = f" In each, write {' and '.join([*texts, f'a {question} as {sentence}'])}, {different}."
    else:
        wording = f" Write {texts[0]} in each, {different}." if texts else ""
    topic = f" {about}" if about else ""
    with_attributes = f" All of them have {attributes}." if attributes else ""
    return f"Write a JSON array of {num_examples} examples{topic}, each written as {fields}{wording}{with_attributes}"


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _kind_sentence(task_format: TaskFormat, shown: Sequence[Example]) -> str:
    """A sentence that this kind of example needs: the better answer, the number of turns, the tags or the functions."""
    roles = task_format.roles
    if roles.rejected and roles.answer:
        return f" The {roles.answer[-1]} answer is right and helpful, the {roles.rejected[-1]} one wrong or useless."
    if roles.turns:
        turns = schema_at(task_format.schema, roles.turns)["maxItems"] // 2
        return f" The user writes {turns} messages in each, and each gets an answer." if turns > 1 else ""
    if roles.tags:
        sets = (schema_at(task_format.schema, path)["items"] for path in roles.tags)
        names = (", ".join(map(str, fixed_labels(tags) or ())) for tags in sets)
        return f" Each example is one sentence, and each token has a tag: {'; '.join(filter(None, names))}."
    if roles.tools:
        return f" Each calls one of these functions: {_compact(field_at(shown[0].values, roles.tools))}"
    return ""


def _fixed_answers_sentence(task_format: TaskFormat) -> str:
    """The sentence that a question with fixed labels must be answerable with one of them; "" for other formats.

    Without it, small models often write statements instead.
    """
    if (question := _question_with_labels(task_format)) is None:
        return ""
    choices = _listed(list(map(str, task_format.labels or ())), "or")
    return f" Each {dotted(question)} is one that {choices} alone answers."


def _question_with_labels(task_format: TaskFormat) -> FieldPath | None:
    """The input whose name is `question`, if the answer is a fixed label; else None."""
    question = next((path for path in task_format.roles.inputs if path[-1] == "question"), None)
    return question if task_format.labels and not task_format.roles.tools else None


def _answered_question(encoding: PromptEncoding) -> str | None:
    """The name of the field with a question that is written after its label; None if there is none."""
    question = _question_with_labels(encoding.format)
    is_written = question and len(question) == 1 and not encoding.pseudo_labels
    return question[0] if question and is_written else None


def _span_sentence(task_format: TaskFormat, passage_name: str) -> str:
    """The sentence that each answer is copied from the passage, which no example shows; "" if it need not be."""
    if not task_format.context_is_given or Rule.ANSWER_IN_CONTEXT not in task_format.rules:
        return ""
    return f" Each {dotted(task_format.roles.answer or ())} is a few words copied from {passage_name}."


def _label_ratio_sentence(encoding: PromptEncoding, label_ratio: Mapping[str, float] | None) -> str:
    """The sentence with the shares of the labels; "" unless pseudo-labels are used, where no request fixes a label."""
    answer, labels = encoding.format.roles.answer, encoding.format.labels
    if not (encoding.pseudo_labels and answer and labels):
        return ""
    names = list(map(str, labels))
    if label_ratio is None:
        return f" The {dotted(answer)} of each is one of {', '.join(names)}, each equally often."
    shares = ", ".join(f"{name} for {label_ratio[name]:.0%}" for name in names if label_ratio[name])
    return f" The {dotted(answer)} of the examples is {shares} of them."


def _paper_prompt(shown: str, num_examples: int) -> list[Message]:
    """The prompt of the paper, for the style `keyed`: the example as an object, and a request for different answers."""
    user = (
        f"You generate question-answering data. Below is one example in JSON. Generate {num_examples} more examples "
        "with the same keys and the same format, all with different answers, as one JSON array.\n\n"
        f"Example:\n{shown}"
    )
    return [{"role": "user", "content": user}]


def describe_fields(encoding: PromptEncoding, without: str | None = None) -> str:
    """Describe in sentences how an example is written, and which values its fields can have, except for one field.

    `[label, text]. The label is one of spam, ham.` The values of the field `without` are left out. The type of a free
    text is left out: a small model writes `text` where the prompt says `body: text`.
    """
    schemas, roles = encoding.field_schemas, encoding.format.roles
    in_other_sentences = [roles.options] if encoding.format.options_vary else []
    in_other_sentences += roles.inputs[:1] if roles.tags else ()
    limits = "".join(
        f" The {name} is {values}."
        for name, part in schemas.items()
        if name != without and (name,) not in in_other_sentences and (values := _describe_values(part))
    )
    all_fields = {(name,): part for name, part in schemas.items()} | dict(leaf_schemas({"properties": schemas}))
    descriptions = "".join(
        f" The {dotted(path)}: {' '.join(part['description'].split()).rstrip('.')}."
        for path, part in all_fields.items()
        if part.get("description")
    )
    return f"{encoding.describe()}.{limits}{descriptions}"


def _describe_values(schema: Schema) -> str:
    """The values that are valid in a schema, in words: `one of spam, ham`. Empty if any text is valid."""
    if is_constant(schema):
        return _as_written(constant_of(schema))
    if values := fixed_labels(schema):
        return f"one of {', '.join(map(_as_written, values))}"
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_describe_values(branch) or "a text" for branch in branches)
    json_type = schema.get("type")
    if json_type in ("integer", "number"):
        bounds = _bounds(schema.get("minimum"), schema.get("maximum"))
        return f"a {'whole ' if json_type == 'integer' else ''}number{bounds and f' of {bounds}'}"
    if parts := schema.get("properties"):
        return f"an object with {', '.join(_named(name, part) for name, part in parts.items())}"
    if prefix := schema.get("prefixItems"):
        return f"a list of {', then '.join(_describe_values(part) or 'a text' for part in prefix)}"
    if schema.get("items", False) is not False:
        length, item = _bounds(schema.get("minItems"), schema.get("maxItems")), _describe_values(schema["items"])
        return f"a list of {length} {f'values, each {item}' if item else 'texts'}".replace("  ", " ")
    if pattern := schema.get("pattern"):
        return f"a text that matches {pattern}"
    if text_format := schema.get("format"):
        return f"a {text_format}"
    length = _bounds(schema.get("minLength"), schema.get("maxLength"))
    return f"a text of {length} characters" if length else ""


def _as_written(value: Json) -> str:
    """A value as JSON; a text has no quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bounds(low: Json, high: Json) -> str:
    """The bounds in words: `3 to 5`, `at least 3`, `at most 5`, or "" without any."""
    if low is not None and high is not None:
        return str(low) if low == high else f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else ""


def _named(name: str, schema: Schema) -> str:
    """The name of a field in an object, with its constant, `role user`, or its values, `mood (one of good, bad)`."""
    values = _describe_values(schema)
    if is_constant(schema):
        return f"{name} {values}"
    return f"{name} ({values})" if values else name


def _listed(words: Sequence[str], conjunction: str) -> str:
    """The words as `a, b and c`, with this conjunction."""
    return f" {conjunction} ".join(filter(None, (", ".join(words[:-1]), words[-1])))
