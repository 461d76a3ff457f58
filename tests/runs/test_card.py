"""The dataset card: what was done and what was not; untrusted text stays text."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from datacreate.filters import FilterOptions
from datacreate.metrics import HumanMetrics, Metrics
from datacreate.metrics.diversity import Diversity
from datacreate.metrics.shortcuts import Shortcut
from datacreate.runs.card import dataset_card
from datacreate.runs.config import GeneratorSpec, RunSpec
from tests.reporting.sample import HOSTILE

SPEC = RunSpec(
    examples=({"question": "Q?", "label": "```\n# not a heading"},), format={}, strategy="tree", recipe="best",
    model="some-model", model_sha256="ab" * 32, embedding_model=None, embedding_model_sha256=None, seed=1,
    num_examples=5, concurrency=8, max_parent_uses=4, sampling={"temperature": 1.0}, benchmark="csqa",
    filters=FilterOptions(near=None),
)  # fmt: skip
SUMMARY: dict[str, Any] = {
    "accepted": 1200, "rejected": {"duplicate": 12, "rejected_by_verifier": 3}, "requests": 300,
    "generated_tokens": 9000, "tokens_per_example": 7.5, "labels": {"True": 600, "False": 600},
    "attributes": {"topic": {"sport": 700, "law": 500}}, "depths": {"1": 1200},
    "depth_warning": "1200 of 1200 examples are children of the formatting example", "license": None,
    "filters": [{"name": "exact", "on": True, "settings": {}, "rejected": 12}],
    "verification": None, "review": None, "compared_with": [],
}  # fmt: skip
CONTAMINATION = {"ngram": 8, "decontaminate": ["csqa", "creak"]}
FULL = SUMMARY | {
    "license": "apache-2.0",
    "filters": [
        {"name": "near", "on": True, "settings": {"near": 0.7}, "rejected": 4},
        {"name": "semantic", "on": False, "settings": {"semantic": None}, "rejected": 0},
        {"name": "contamination", "on": True, "settings": CONTAMINATION, "rejected": 2},
    ],
    "verification": {
        "model": "other-model", "mode": "drop", "pseudo_labels": True, "kept": 1200, "dropped": 3, "agreed": 0.91,
        "concordance": 0.5061, "concordance_interval": [0.42, 0.59], "min_concordance": 0.6,
        "label_noise_rows": 200,
    },
    "compared_with": [{"name": "csqa", "split": "test", "digest": "cd" * 32}],
}  # fmt: skip


def metrics(text: str, human: bool) -> Metrics:
    """Shortcuts and diversity, with `text` in a warning."""
    values: dict[str, Any] = {
        "rows": 500,
        "shortcuts": (
            Shortcut(name="length alone", score=0.55, chance=0.5),
            Shortcut(name="wording", score=0.91, chance=0.5, warning=f"see {text!r}"),
        ),
        "no_shortcuts": None,
        "diversity": Diversity(
            texts=500, paired=500, mean_words=12.4, distinct_1=0.21, distinct_2=0.63, distinct_3=None, self_bleu=0.31,
            between=0.81, from_example=0.77, vendi=61.3,
        ),
        "passage_words": 91.5,
    }  # fmt: skip
    return Metrics(**values, human=HumanMetrics(benchmark="csqa", **values) if human else None)


def sections(card: str) -> dict[str, str]:
    """Heading -> the text below it on one line, spaces collapsed."""
    _, *parts = re.split(r"^## ", card, flags=re.MULTILINE)
    return {part.split("\n")[0]: " ".join(part.split()) for part in parts}


def test_the_metadata_block_is_what_the_hub_reads() -> None:
    _, block, _ = dataset_card(SPEC, SUMMARY).split("---\n", 2)
    assert yaml.safe_load(block)["size_categories"] == ["1K<n<10K"]


def test_what_was_not_done() -> None:
    card = dataset_card(SPEC, SUMMARY)
    by_heading = sections(card)
    assert "Labels were not verified." in by_heading["Label verification"]
    assert "not checked against any test set" in by_heading["Contamination"]
    assert "Not measured." in by_heading["Shortcuts"]
    assert "Not measured." in by_heading["Diversity"]
    assert "License of the model: not known." in card
    for words in ("False statements", "Neither a person", "Bias", "Test sets", "paraphrases", "a few words"):
        assert words in by_heading["Risks and limits"]


def test_what_was_done() -> None:
    card = dataset_card(SPEC, FULL, metrics("'not'", human=True))
    by_heading = sections(card)
    assert "apache-2.0" in card
    expected = {
        "Filters and rejects": [
            "| near | 4 | near 0.7 |",
            "| semantic | – | off |",
            "| contamination | 2 | ngram 8, decontaminate csqa creak |",
            "| rejected_by_verifier | 3 |",
        ],
        "Label verification": [
            "`other-model` answered",
            "mode drop, pseudo-labels): 1200 rows kept, 3 rejected.",
            "91% of the rows",
            "a concordance of 0.51 (95 % interval 0.42 to 0.59;",
        ],
        "Attributes": ["| topic | sport | 700 |", "| topic | law | 500 |"],
        "Contamination": [f"| csqa | test | {'cd' * 8}… |"],
        "Shortcuts": [
            "| shortcut | this set | chance | csqa train (500 rows) |",
            "| wording | 91% | 50% | 91% |",
            "**Warning:** wording: see",
        ],
        "Diversity": ["| words per passage | 91.5 | 91.5 |", "the same number of both sets"],
        "Risks and limits": ["`other-model` considers right, which did not write", "paraphrases"],
    }
    for title, parts in expected.items():
        text = re.sub(r" +\|", " |", by_heading[title])
        assert [part for part in parts if part not in text] == [], title
    assert "in a few words" not in by_heading["Risks and limits"]  # the near filter was on


def test_the_sampling_settings_of_each_model() -> None:
    assert 'sampling `{"temperature": 1.0}`. ' in sections(dataset_card(SPEC, SUMMARY))["Generation"]
    generators = [
        GeneratorSpec(model=name, sha256="", sampling={"top_p": p}) for name, p in (("one", 0.5), ("two", 0.9))
    ]
    generation = sections(dataset_card(SPEC.model_copy(update={"mixture": generators}), SUMMARY))["Generation"]
    assert 'sampling `{"top_p": 0.5}` (`one`), `{"top_p": 0.9}` (`two`). ' in generation


def test_a_model_that_verifies_its_own_examples_and_keeps_all() -> None:
    own = FULL | {"verification": FULL["verification"] | {"model": "some-model", "mode": "keep"}}
    risks = sections(dataset_card(SPEC, own))["Risks and limits"]
    assert "`some-model`, which also wrote the examples, gave its own answers" in risks
    assert "disagrees with were kept" in risks


@pytest.mark.parametrize("hostile", [*HOSTILE, "\n# heading", "`code`", "a\n---\nb"])
def test_untrusted_text_adds_no_markup(hostile: str) -> None:
    def card(text: str) -> str:
        spec = SPEC.model_copy(update={"model": text, "model_sha256": f"served as {text}"})
        checked = FULL["verification"] | {"model": text}
        summary = FULL | {
            "labels": {text: 1},
            "attributes": {text: {text: 1}},
            "license": text,
            "verification": checked,
        }
        return dataset_card(spec, summary, metrics(text, human=True))

    plain = card("plain")
    assert card(hostile).count("\n") == plain.count("\n")
    assert re.findall(r"^#+ .*", card(hostile), re.MULTILINE) == re.findall(r"^#+ .*", plain, re.MULTILINE)
    assert not re.search(r"<(?!/?code>)|\*\*bold|\]\(http|[\x00\x07\x1b\u202e]", card(hostile).split("---\n", 2)[2])
