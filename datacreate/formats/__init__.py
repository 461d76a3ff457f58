"""Task formats: what one example looks like, how it is written for the model, and how a completion is validated.

This module has the options about examples (`--format`, `--inputs`, `--example`, ...), and what they change.

example.py             Example; JSON objects from text; fields by path
row_file.py            the rows of a file, not validated
infer.py               the format of an example, or of --format or named fields without one; infer_rows.py: of many rows
infer_roles.py         inputs, options, answer, ... by names and values; refuses examples that would be misread
infer_labels.py        the possible answers: labels, or keys (positions or letters) of options
task_format.py         TaskFormat; loads schemas/*.json and --format files; specializes a format to examples
roles.py               what each field is for; which option is right, whatever the answer field holds
rules.py               conditions between fields; what is special about conversations, tags and function calls
schema_utils.py        functions on JSON Schemas: constants, labels, free texts
schema_keywords.py     the JSON Schema keywords that a format may use
prompt_encoding.py     the prompt encoding: writes an example, reads an item
response.py            the schema that a request sends; from a completion to candidates and rejects
candidate.py           Candidate; what an exact duplicate is; validates an example
reject.py              Reject; the reject reasons, with advice
text_normalization.py  which texts are equal, and what a word is
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, model_validator

from datacreate.errors import UsageError
from datacreate.formats.example import JSON_TYPES, Example, FieldPath, Json, dotted, field_at, fields_of, leaf_values
from datacreate.formats.row_file import MAX_EXAMPLES
from datacreate.settings import CommaList, Pairs, Settings, TextOrFile, setting

Fields = Annotated[tuple[str, ...], CommaList]


def _input(help_text: str, **options: Any) -> Any:
    return setting(help_text, "input", **options)


class FormatOptions(Settings):
    """The task format, or what the fields of the examples mean. What is not set is inferred from the examples."""

    format: str | None = _input(
        "Task format: the name of a shipped one, or a JSON file.",
        metavar="NAME|FILE",
        shown_default="inferred from the example",
    )
    inputs: Fields = _input(
        "Fields that the answer depends on.",
        default=(),
        metavar="FIELD,...",
        shown_default="all texts but answer and options",
    )
    answer: str | None = _input("Field of the answer.", metavar="FIELD", shown_default="from its name and value")
    options: str | None = _input(
        "Field with a list of possible answers.", metavar="FIELD", shown_default="as for --answer"
    )
    ignore: Fields = _input(
        "Fields that are not inputs and that the model does not write; created rows have the value of one example.",
        default=(),
        metavar="FIELD,...",
    )
    labels: Pairs = _input("All values that a field may have.", default={}, metavar="FIELD=a,b,c")
    label: tuple[str, ...] = _input(
        "One more value that a field may have; it can contain commas. Repeat the option for each.",
        default=(),
        metavar="FIELD=VALUE",
    )
    range: Pairs = _input("Range of a numeric field.", default={}, metavar="FIELD=1..5")
    turns: int | None = _input(
        "Conversations: number of user messages, each with its answer.", gt=0, shown_default="as in the example"
    )

    def check_format(self, *, turns: bool = True) -> None:
        """Raise UsageError if --format is combined with options about fields; --turns is allowed if `turns`."""
        allowed = ("format", "turns") if turns else ("format",)
        names = (name for name in FormatOptions.model_fields if name not in allowed)
        if self.format is not None and (flag := self.first_changed_flag(names)):
            raise UsageError(f"{flag} cannot be combined with --format; write it into the format file")

    @property
    def range_schema(self) -> dict[str, Any]:
        """A JSON Schema of the fields with --range, which says that they are numbers."""
        return {"properties": {name: {"type": "number"} for name in self.range}}

    @property
    def label_sets(self) -> dict[str, list[str]]:
        """The values of each field with --labels or --label, in order."""
        sets = {name: text.split(",") for name, text in self.labels.items()}
        for text in self.label:
            name, _, value = text.partition("=")
            sets.setdefault(name.strip(), []).append(value)
        return {name: [value.strip() for value in values if value.strip()] for name, values in sets.items()}


_Source = Path | dict[str, Json]  # a file with formatting examples, or the values of one


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value as a tuple of it; several as a tuple of them; () for None."""
    return (value,) if isinstance(value, (str, Path, dict)) else tuple(value or ())


class ExampleOptions(Settings):
    """Formatting examples, from files or from a benchmark, and an instruction."""

    example: Annotated[_Source | tuple[_Source, ...], BeforeValidator(as_tuple)] = _input(
        "File with formatting examples: a JSON object, or rows as JSONL, JSON, CSV, TSV or Parquet. Repeat the option "
        "for more.",
        default=(),
        metavar="FILE",
    )
    example_limit: int | None = _input(
        "Take only the first rows of each --example.",
        gt=0,
        le=MAX_EXAMPLES,
        metavar="K",
        shown_default=f"all, of at most {MAX_EXAMPLES}",
    )
    benchmark: str | None = _input(
        "Instead of --example: draw the examples from the train split of this benchmark (see `benchmarks list`).",
        metavar="NAME",
    )
    examples: int = _input(
        "With --benchmark: formatting examples to draw from it, labels balanced.",
        default=1,
        gt=0,
        le=MAX_EXAMPLES,
        metavar="K",
    )
    example_seed: int | None = _input("Seed that draws the examples from the benchmark.", shown_default="--seed")

    instruction: TextOrFile | None = _input(
        "What the data is for, who speaks, what to avoid: a text, or @FILE. With --format, or with --inputs (and "
        "--answer, --labels), no example is needed.",
        metavar="TEXT|@FILE",
    )

    @property
    def sources(self) -> tuple[_Source, ...]:
        """The files or objects of --example."""
        return as_tuple(self.example)

    @model_validator(mode="after")
    def _check_example(self) -> Self:
        if self.example and self.benchmark is not None:
            raise ValueError("give either --example FILE or --benchmark NAME")
        if self.benchmark is None and (flag := self.first_changed_flag(("example_seed", "examples"))):
            raise ValueError(f"{flag} draws from a benchmark; give --benchmark NAME instead of --example")
        if not self.example and self.example_limit is not None:
            raise ValueError("--example-limit is for --example; with --benchmark give --examples K")
        return self


_ADVICE_IN_LIST = (
    "for objects in a list, write `enum` into the output of `datacreate schema infer` and give it as --format"
)


def named_field(example: Example, name: str, option: str) -> FieldPath:
    """The path of a field that the user names. Raises UsageError if the example lacks it."""
    fields = {".".join(path): path for path, _ in fields_of(example.values)}
    if name not in fields:
        existing = ", ".join(dotted(path) for path, _ in leaf_values(example.values))
        parent = fields.get(name.rpartition(".")[0])
        is_in_list = parent and isinstance(field_at(example.values, parent), list)
        advice = _ADVICE_IN_LIST if is_in_list else f"it has {existing}"
        raise UsageError(f"{option} {name}: the example has no such field; {advice}")
    return fields[name]


def declared_schemas(example: Example, format_options: FormatOptions) -> dict[FieldPath, dict[str, Json]]:
    """The schema of each field with --labels or --range. Raises UsageError for an invalid value."""
    declared = [("--labels", name, labels, ",") for name, labels in format_options.label_sets.items()]
    declared += [("--range", name, text.split(".."), "..") for name, text in format_options.range.items()]
    schemas: dict[FieldPath, dict[str, Json]] = {}
    for option, name, texts, separator in declared:
        path, argument = named_field(example, name, option), f"{option} {name}={separator.join(texts)}"
        value = field_at(example.values, path)
        is_list = isinstance(value, list) and len(set(map(type, value))) == 1
        first = value[0] if is_list else value
        if not isinstance(first, str | int | float):
            found = {"array": "a list", "object": "an object"}.get(JSON_TYPES[type(value)], "null")
            advice = _ADVICE_IN_LIST if found == "a list" and value else "put a value there"
            raise UsageError(f"{option} {name}: the example has {found} there; {advice}")
        if path in schemas:
            raise UsageError(f"{name} has both --labels and --range; give one of them")
        limits = _enum(texts, type(first), argument) if option == "--labels" else _range(texts, type(first), argument)
        schema = {"type": JSON_TYPES[type(first)], **limits}
        schemas[path] = {"type": "array", "items": schema} if is_list else schema
    return schemas


def _enum(texts: list[str], value_type: type, argument: str) -> dict[str, Json]:
    labels = [_convert(text, value_type, argument) for text in texts]
    if len({str(label).casefold() for label in labels}) < max(2, len(labels)):
        raise UsageError(f"{argument}: give two or more different values; case does not count")
    return {"enum": labels}


def _range(texts: list[str], value_type: type, argument: str) -> dict[str, Json]:
    if value_type not in (int, float):
        raise UsageError(f"{argument}: the example's value is not a number; use --labels for its values")
    bounds = [_convert(text, value_type, argument) for text in texts] if len(texts) == 2 else []
    if not bounds or bounds[0] >= bounds[1]:
        raise UsageError(f"{argument}: write LOW..HIGH; LOW must be less than HIGH")
    return {"minimum": bounds[0], "maximum": bounds[1]}


def _convert(text: str, value_type: type, argument: str) -> Json:
    """A value from the command line in the type of the example's value."""
    try:
        return TypeAdapter(value_type, config=ConfigDict(allow_inf_nan=False)).validate_strings(text)
    except ValidationError:
        raise UsageError(
            f"{argument}: {text!r} is not of the example's type, {JSON_TYPES[value_type]}; give one of that type"
        ) from None
