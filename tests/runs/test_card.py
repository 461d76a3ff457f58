"""The dataset card: what was done, and as plainly what was not; no text is more than text."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from datacreate.filters.registry import FilterSettings
from datacreate.runs.card import dataset_card
from datacreate.runs.config import RunSpec
from tests.reporting.sample_report import measures

IDENTITY = RunSpec(
    example={"question": "Q?", "label": "```\n# not a heading"},
    format={},
    strategy="tree",
    method="datacreate",
    model="some-model",
    model_sha256="ab" * 32,
    embedding_model=None,
    embedding_model_sha256=None,
    seed=1,
    num_examples=5,
    concurrency=8,
    max_parent_uses=4,
    sampling={"temperature": 1.0},
    benchmark="csqa",
    filters=FilterSettings(near=None),
)
SUMMARY: dict[str, Any] = {
    "accepted": 1200,
    "rejected": {"duplicate": 12, "rejected_by_verifier": 3},
    "requests": 300,
    "generated_tokens": 9000,
    "tokens_per_example": 7.5,
    "labels": {"True": 600, "False": 600},
    "depths": {"1": 1200},
}
FULL = SUMMARY | {
    "license": "apache-2.0",
    "filters": [
        {"name": "exact", "on": True, "settings": {}, "rejected": 12},
        {"name": "near", "on": True, "settings": {"near": 0.7}, "rejected": 4},
        {"name": "semantic", "on": False, "settings": {"semantic": None}, "rejected": 0},
        {
            "name": "contamination",
            "on": True,
            "settings": {"ngram": 8, "decontaminate": ["csqa"]},
            "rejected": 2,
        },
    ],
    "verification": {
        "model": "other-model",
        "mode": "drop",
        "pseudo_labels": True,
        "threshold": 0.8,
        "kept": 1200,
        "dropped": 3,
        "agreed": 0.91,
        "auc": 0.5061,
        "min_auc": 0.75,
        "label_noise_rows": 200,
        "label_noise_rows_required": 200,
        "accepted_before_check": 12,
        "kept_by_label": {"True": 700, "False": 500},
        "warning": None,
    },
    "compared_with": [{"benchmark": "csqa", "split": "test", "digest": "cd" * 32}],
}


def section(card: str, title: str) -> str:
    """The text below a heading."""
    found = re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def test_a_card_begins_with_metadata_that_the_hub_reads() -> None:
    _, block, _ = dataset_card(IDENTITY, SUMMARY).split("---\n", 2)
    assert yaml.safe_load(block)["size_categories"] == ["1K<n<10K"]


def test_what_was_not_done_is_said() -> None:
    card = dataset_card(IDENTITY, SUMMARY)
    assert "Labels were not verified." in section(card, "Label verification")
    assert "compared with no test set" in section(card, "Contamination")
    assert "No other filter was on." in section(card, "Filters and rejects")
    assert "Not measured." in section(card, "Shortcuts")
    assert "Not measured." in section(card, "Diversity")
    assert "license of the model is not known" in card
    risks = section(card, "Risks and limits")
    said = ("False statements", "Nobody checked", "Bias", "Test sets", "in other words", "in a few words")
    for word in said:
        assert word in risks


def test_what_was_done_is_told_with_its_figures() -> None:
    card = dataset_card(IDENTITY, FULL, measures("'not'", human=True))
    assert "license of the model is apache-2.0" in card
    filters = section(card, "Filters and rejects")
    assert "| near | 4 | near 0.7 |" in filters
    assert "| semantic | – | off |" in filters
    assert "| contamination | 2 | ngram 8, decontaminate csqa |" in filters
    assert "| rejected&#95;by&#95;verifier | 3 |" in section(card, "Filters and rejects")
    verification = section(card, "Label verification")
    told = ("`other-model`", "mode drop, pseudo-labels, threshold 0.8", "1200 rows kept, 3 dropped", "91%")
    for figure in (*told, "AUC of 0.506", "| True | 700 |"):
        assert figure in verification
    assert f"| csqa | test | `{'cd' * 8}…` |" in section(card, "Contamination")
    shortcuts = section(card, "Shortcuts")
    assert "| wording | 91% | 50% | 91% |" in shortcuts
    assert "**Warning:** wording: see" in shortcuts
    assert "| shortcut | this set | chance | csqa train (500 rows) |" in shortcuts
    diversity = section(card, "Diversity")
    assert "| words a passage | 91.5 | 91.5 |" in diversity
    assert "as many of either set" in diversity
    risks = section(card, "Risks and limits")
    assert "in a few words" not in risks  # near repeats were looked for
    assert "in other words" in risks
    assert "It is not the model that wrote" in risks
    assert "See the warnings above" in risks


def test_a_model_that_verifies_itself_or_only_takes_note_is_told_as_such() -> None:
    own = FULL | {"verification": FULL["verification"] | {"model": "some-model", "mode": "keep"}}
    risks = section(dataset_card(IDENTITY, own), "Risks and limits")
    assert "It is the model that wrote" in risks
    assert "where it disagrees the examples were kept" in risks


def test_a_set_beside_no_human_one_has_no_column_for_it() -> None:
    card = dataset_card(IDENTITY, SUMMARY, measures("x", human=False))
    assert "| wording | 91% | 50% |\n" in section(card, "Shortcuts")
    assert "| self-BLEU (less is more diverse) | 0.31 |\n" in section(card, "Diversity")


HOSTILE = ["a | b", "<script>", "\n# heading", "[x](http://y)", "`code`", "**bold**"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_a_model_wrote_marks_nothing_up(hostile: str) -> None:
    summary = SUMMARY | {"labels": {hostile: 1}}
    card = dataset_card(IDENTITY, summary, measures(hostile, human=True))
    plain = dataset_card(IDENTITY, SUMMARY | {"labels": {"plain": 1}}, measures("plain", human=True))
    assert hostile not in card
    assert card.count("\n") == plain.count("\n")
    assert re.findall(r"^#+ .*", card, re.MULTILINE) == re.findall(r"^#+ .*", plain, re.MULTILINE)
