"""The response schema, tested with the grammar converters of the engines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM
from datacreate.formats.example import Example, canonical_json, field_at
from datacreate.formats.prompt_encoding import PromptEncoding, Style
from datacreate.formats.response import build_response_schema, portable_pattern, portable_schema
from datacreate.formats.task_format import load_format, specialize
from tests.formats import examples

Accepts = Callable[[str], bool]


def xgrammar_accepts(schema: str) -> Accepts:
    """Whether the grammar of vLLM accepts a text."""
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar import testing

    tag = VLLM.schema_field(json.loads(schema), None)["response_format"]
    grammar = xgrammar.Grammar.from_structural_tag(json.dumps(tag))
    return lambda text: bool(testing._is_grammar_accept_string(grammar, text))


def llguidance_accepts(schema: str) -> Accepts:
    """Whether the grammar of a llama.cpp with llguidance (xllamacpp) accepts a text."""
    llguidance = pytest.importorskip("llguidance")
    grammar = LLAMACPP.schema_field(json.loads(schema), None)["grammar"]
    tokenizer = llguidance.LLTokenizer("byte")
    error, message = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, tokenizer)
    assert not error, message

    def accepts(text: str) -> bool:
        matcher, tokens = llguidance.LLMatcher(tokenizer, grammar), tokenizer.tokenize_bytes(text.encode())
        return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())

    return accepts


CONVERTERS = pytest.mark.parametrize("converter", [xgrammar_accepts, llguidance_accepts])


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


SHIPPED = {
    "multiple_choice": examples.UMBRELLA,
    "yes_no_closed_book": examples.CLAIM,
    "yes_no_open_book": examples.PASSAGE,
}
FORMATS = {
    **{name: (examples.inferred(values).format, values) for name, values in examples.ALL.items()},
    **{name: (specialize(load_format(name), Example(values)), values) for name, values in SHIPPED.items()},
    "labels": (examples.inferred(examples.NLI, labels=examples.NLI_LABELS).format, examples.NLI),
    "range": (examples.inferred(examples.REVIEW, range={"stars": "1..5"}).format, examples.REVIEW),
}


@CONVERTERS
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("style", ["positional", "keyed"])
def test_a_grammar_accepts_written_examples_and_nothing_else(
    converter: Callable[[str], Accepts], name: str, style: Style
) -> None:
    task_format, values = FORMATS[name]
    encoding = PromptEncoding(task_format, style)
    item = encoding.write(Example(values))
    accepts = converter(build_response_schema(encoding, 2, None))
    assert accepts(compact([item, item]))
    more = [*item, 1] if isinstance(item, list) else {**item, "more": 1}
    less = item[:-1] if isinstance(item, list) else dict(list(item.items())[1:])
    for other in ([item], [item] * 3, [more, item], [less, item]):
        assert not accepts(compact(other))
    if task_format.labels and task_format.roles.answer:
        own = field_at(values, task_format.roles.answer)
        other = next(label for label in task_format.labels if label != own)
        assert converter(build_response_schema(encoding, 2, [own, own]))(compact([item, item]))
        assert not converter(build_response_schema(encoding, 2, [own, other]))(compact([item, item]))


@CONVERTERS
def test_a_grammar_allows_a_space_between_the_parts_and_no_indentation(converter: Callable[[str], Accepts]) -> None:
    # After `"a",` models expect a space. If a grammar forbids it, they write garbage.
    accepts = converter(json.dumps({"type": "array", "items": {"type": "object", "additionalProperties": TEXT}}))
    assert accepts('[{"a":"b","c":"d"},{}]')
    assert accepts('[{"a": "b", "c": "d"}, {}]')
    assert accepts('[ {"a" :"b"} ]')
    assert not accepts('[\n  {"a": "b"}\n]')


TEXT, NULL = {"type": "string"}, {"type": "null"}
# A schema, values that its grammar accepts, and values that it rejects.
SCHEMAS: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"type": "string", "pattern": r"^\d{3}-\d{4}$"}, ["123-4567"], ["123-456", "a123-4567"]),
    ({"type": "string", "pattern": r"^(?:yes|[A-F]\.|no) [A-Z_a-z -]*$"}, ["yes a-b", "F. ", "no "], ["yes", "G. "]),
    ({"type": "string", "pattern": "^[^ ]+$"}, ["a,b.é😀"], ["", "a b", "a\n", 'a"']),
    ({"type": "string", "pattern": "^n([a-z]{2,3})+x$"}, ["nabx", "nabcdex"], ["nx", "nax"]),
    ({"type": "string", "format": "date"}, ["2024-02-29"], ["2024-13-01", "today"]),
    ({"type": "string", "format": "time"}, ["23:59:59Z", "01:02:03.123+01:00"], ["24:00:00Z"]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123"]),
    ({"type": "integer", "minimum": -50, "maximum": 60}, [-50, 0, 60], [-51, 61]),
    ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10.5}, [1, 10], [0, 11]),
    ({"type": ["string", "null"], "pattern": "^a$"}, ["a", None], ["b", 1]),
    ({"anyOf": [{"type": "integer", "minimum": 3}, TEXT]}, [3, "a"], [2, None]),
    ({"enum": ['é"x', 1, None, {"z": 1, "a": [1, 2]}]}, ['é"x', 1, None], ["b", 2]),
    ({"const": 'a\\b\n"c"\u2028😀'}, ['a\\b\n"c"\u2028😀'], ["b"]),
    ({"type": "array", "items": TEXT, "minItems": 2, "maxItems": 3}, [["a", "b"]], [["a"], ["a"] * 4]),
    ({"type": "array", "prefixItems": [TEXT], "items": False}, [["a"]], [[], ["a", "b"]]),
    ({"type": "array", "prefixItems": [TEXT], "items": NULL, "minItems": 2}, [["a", None]], [["a"]]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1}], [{"a": "x"}]),
    ({"properties": {"b": TEXT, "a": TEXT}}, [{"b": "", "a": ""}], [{"b": ""}, {"a": "", "b": ""}]),
    (
        {"properties": {"a": TEXT}, "oneOf": [{"properties": {"k": {"const": k}}} for k in "xy"]},
        [{"a": "", "k": "x"}, {"a": "", "k": "y"}],
        [{"a": ""}, {"a": "", "k": "z"}],
    ),
    ({"not": TEXT}, ["a", 1, None, [1], {"a": 1}], []),
]


@CONVERTERS
@pytest.mark.parametrize(("schema", "good", "bad"), SCHEMAS, ids=[canonical_json(case[0]) for case in SCHEMAS])
def test_what_the_grammar_of_a_schema_accepts(
    converter: Callable[[str], Accepts], schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    accepts = converter(compact(portable_schema(schema)))
    assert [value for value in good if not accepts(compact(value))] == []
    assert [value for value in bad if accepts(compact(value))] == []


def parts_of(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    inside = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    inside += [*schema.get("properties", {}).values()]
    inside += [schema[key] for key in ("items", "additionalProperties") if schema.get(key)]
    for part in inside:
        yield from parts_of(part)


SHAPES = [set(keys.split()) for keys in ("const", "enum", "anyOf", "type", "type pattern", "type format")] + [
    {"type", "minimum", "maximum"},
    {"type", "items", "minItems", "maxItems"},
    {"type", "prefixItems", "minItems", "maxItems"},
    {"type", "properties", "required", "additionalProperties"},
]


@pytest.mark.parametrize(
    "schema",
    [portable_schema(case[0]) for case in SCHEMAS]
    + [json.loads(build_response_schema(PromptEncoding(task_format), 2, None)) for task_format, _ in FORMATS.values()],
    ids=str,
)
def test_only_keywords_that_llama_cpp_supports_are_used(schema: dict[str, Any]) -> None:
    # No Python package has its converter to GBNF. This dialect was tested with its C++ code (llama-cpp-python
    # 0.3.36).
    for part in parts_of(schema):
        assert isinstance(part, dict)
        assert any(part.keys() <= shape for shape in SHAPES)
        if "prefixItems" in part:
            assert part["minItems"] == part["maxItems"] == len(part["prefixItems"])
        if part.get("properties"):
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False
        if "pattern" in part:
            assert re.fullmatch(r"\^.*[^\\]\$", part["pattern"])
            assert not re.search(r'\\[a-wyzA-Z]|\(\?|"|[^])\\]\{', part["pattern"])
        assert part.get("format", "date") in ("date", "time", "date-time", "uuid")


NOT_PORTABLE = r"""abc ^abc abc$ ^"x"$ ^["]$ ^$ ^\n$ ^a\\b$ ^\\d$ ^(?=a)b$ ^\bfoo$ ^(a)\1$ ^(^a)b$ ^(?i)abc$ ^a+$
    ^[a]++$ ^[\w-]$ ^[a]+?$ ^a|$ ^(a|)$ ^a|b$ ^[\n]$ ^[\W]$ ^[A-z]$ ^[!-~]$ ^.$ ^[a]{99}$ ^([a]{9}){9}$ ^((a)b)$ ^é$"""


@pytest.mark.parametrize("pattern", ["", *NOT_PORTABLE.split()])
def test_patterns_that_only_validation_checks(pattern: str) -> None:
    assert portable_pattern(pattern) is None


@given(data=st.data())
@pytest.mark.parametrize("pattern", [p for schema, _, _ in SCHEMAS if (p := schema.get("pattern")) and r"\S" not in p])
def test_texts_of_the_grammar_match_the_pattern_without_json_escapes(pattern: str, data: st.DataObject) -> None:
    portable = portable_pattern(pattern)
    assert portable
    text = data.draw(st.from_regex(portable.removesuffix("$") + r"\Z"))
    assert re.search(pattern, text)
    assert compact(text) == f'"{text}"'
