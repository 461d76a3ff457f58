"""Formatting examples for the tests, and arbitrary JSON for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from datacreate.formats import FormatOptions
from datacreate.formats.infer import InferredFormat
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.runs.formatting_examples import read_examples

UMBRELLA = {
    "question": "Where would you put a wet umbrella when you come home?",
    "context": None,
    "options": ["stand", "bookshelf", "oven", "wallet", "aquarium"],
    "label": "stand",
}
CLAIM = {"question": "Bees make honey.", "context": None, "options": ["True", "False"], "label": True}
PASSAGE = {**CLAIM, "context": "Bees carry nectar home and make honey of it."}
NLI = {"premise": "A man plays a guitar.", "hypothesis": "A man makes music.", "label": "entailment"}
NLI_LABELS = {"label": "entailment,neutral,contradiction"}
REVIEW = {"text": "Arrived late and broken.", "stars": 1}
SPAN = {
    "context": "The Elbe rises in the Giant Mountains and flows into the North Sea.",
    "question": "Where does the Elbe rise?",
    "answer": "the Giant Mountains",
}
NESTED = {
    "input": {"claim": "Water boils at 100 degrees.", "source": None},
    "output": {"why": "At sea level it does.", "label": "true", "note": ""},
}
TAGGED = {"headline": "Storm closes harbour", "tags": ["weather", "shipping"], "priority": 2, "score": 0.5}
ARABIC = {"سؤال": "ما هي عاصمة مصر؟", "context": None, "options": ["القاهرة", "دمشق", "تونس"], "label": "القاهرة"}
CHINESE = {"question": "水在多少度结冰？", "options": ["零度", "十度", "一百度"], "label": "零度"}
UNUSUAL = {"text": "One line\u2028and another 😀👩‍🔬", "label": "😀"}
DOTTED = {"meta.id": "x1", "q.text": "Is water wet?", "a.label": "yes"}

CLOSED: dict[str, dict[str, Any]] = {
    "umbrella": UMBRELLA,
    "claim": CLAIM,
    "passage": PASSAGE,
    "nested": NESTED,
    "arabic": ARABIC,
    "chinese": CHINESE,
    "dotted": DOTTED,
}
"""Examples with a closed set of answers."""

ALL = {**CLOSED, "nli": NLI, "review": REVIEW, "span": SPAN, "tagged": TAGGED, "unusual": UNUSUAL}

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
_names = st.sampled_from("question context options choices label answer text a.b a".split())
json_objects = st.dictionaries(_names | st.text(max_size=6), json_values, max_size=6)


def inferred(values: dict[str, Any], **overrides: Any) -> InferredFormat:
    """The format inferred from these values. NESTED and DOTTED get the labels that cannot be inferred."""
    if values is NESTED:
        overrides = {"labels": {"output.label": "true,false"}, **overrides}
    if values is DOTTED:
        overrides = {"labels": {"a.label": "yes,no"}, **overrides}
    return read_examples([values], FormatOptions(**overrides))[1]


def encoding_of(values: dict[str, Any], **overrides: Any) -> PromptEncoding:
    """The encoding of the inferred format."""
    return PromptEncoding(inferred(values, **overrides).format)
