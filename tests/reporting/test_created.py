"""A creation run as the report tells of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.dataset_metrics import DatasetMetrics
from datacreate.errors import CheckpointError
from datacreate.metrics.text_similarity import SentenceCosine, WordOverlap
from datacreate.reporting import created as module
from datacreate.reporting.created import created_set
from datacreate.reporting.distance import MOST_COMPARED, distance, evenly, find_likeness
from datacreate.runs.directory import RunDirectory
from tests.making import COMMONSENSE, NLI, NLI_LABELS, commits, examples, make

WORDS = WordOverlap()
APPRAISER = DatasetMetrics(WORDS)


class Angles:
    """An embedder without a model: a text is an angle in degrees."""

    dimensions = 2

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_it_has_what_the_log_says(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path, model, example=NLI, labels=NLI_LABELS, count=24)
    made = created_set(tmp_path, APPRAISER)
    assert (made.requested, made.accepted, made.finished, made.strategy) == (24, 24, True, "tree")
    assert made.labels == summary["labels"]
    assert sum(made.labels.values()) == 24
    assert made.depths == {int(depth): number for depth, number in summary["depths"].items()}
    assert made.rejected == summary["rejected"]
    assert made.example == NLI
    assert all(sample in examples(tmp_path) for sample in made.samples)
    assert len(made.samples) == 10


def test_the_tree_is_that_of_the_log(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=40)
    made = created_set(tmp_path, APPRAISER)
    root, *others = made.tree
    assert (root.parent, root.depth, root.id, root.label) == (None, 0, made.example_id, COMMONSENSE["label"])
    assert len(others) == 40
    seen = {root.id}
    for node in others:
        assert node.parent in seen
        seen.add(node.id)
    told = {node.id: node.children for node in made.tree}
    for parent, number in told.items():
        assert number == sum(len(c.accepted) for c in commits(tmp_path) if c.parent == parent)


def test_a_large_tree_is_cut_to_whole_families(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, model, count=40)
    monkeypatch.setattr(module, "MOST_NODES", 12)
    nodes = created_set(tmp_path, APPRAISER).tree
    ids = {node.id for node in nodes}
    assert len(nodes) == 12
    assert all(node.parent is None or node.parent in ids for node in nodes)
    assert sum(node.children for node in nodes) > 11  # those not shown are counted


def test_an_unfinished_run_is_told_so_far(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=25)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"count": 50}))
    made = created_set(tmp_path, APPRAISER)
    assert (made.requested, made.accepted, made.finished) == (50, 25, False)


def test_a_run_without_an_example_has_no_distance(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=5)
    (tmp_path / "log.jsonl").write_bytes(b"")
    made = created_set(tmp_path, APPRAISER)
    assert (made.accepted, made.distance, made.samples, len(made.tree)) == (0, None, (), 1)
    assert made.measures is None


def test_it_has_the_shortcuts_and_the_diversity_of_the_rows(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=40)
    measures = created_set(tmp_path, APPRAISER).measures
    assert measures is not None
    assert measures == APPRAISER.run(RunDirectory(tmp_path))
    assert [one["name"] for one in measures["shortcuts"]][:3] == [
        "longest option",
        "words of the question",
        "position of the right option",
    ]
    assert measures["diversity"]["texts"] == 40


def test_word_overlap_by_hand() -> None:
    told = distance(WORDS, "Where is the cat?", ["where IS the cat", "where is a dog", "blue"], [1, 1, 2])
    assert told is not None
    # 0; 1 - 2/6: where, is of where, is, the, cat, a, dog; 1
    assert told.mean == pytest.approx((0 + 4 / 6 + 1) / 3)
    assert told.median == pytest.approx(4 / 6)
    assert told.by_depth == {1: pytest.approx(2 / 6), 2: 1.0}
    assert (told.bins[0], told.bins[13], told.bins[19], sum(told.bins)) == (1, 1, 1, 3)
    assert "Jaccard" in told.measure


def test_cosine_distance_is_one_less_the_cosine() -> None:
    likeness = SentenceCosine("shared-words", Angles())
    told = distance(likeness, "0", ["0", "60"], [1, 2])
    assert told is not None
    assert told.by_depth == {1: pytest.approx(0), 2: pytest.approx(1 / 2)}
    assert told.measure == "cosine distance, shared-words"


@given(total=st.integers(0, 3000))
def test_of_a_large_set_some_are_taken_evenly(total: int) -> None:
    places = evenly(total, MOST_COMPARED)
    assert len(places) == min(total, MOST_COMPARED)
    assert places == sorted(set(places))
    assert all(0 <= place < total for place in places)
    steps = {b - a for a, b in pairwise(places)}
    assert not steps or max(steps) - min(steps) <= 1


def test_without_an_encoder_words_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path))
    assert find_likeness(None).name == WORDS.name
    assert find_likeness("none").name == WORDS.name
    with pytest.raises(CheckpointError, match="datacreate models pull all-minilm-l6-v2"):
        find_likeness("all-minilm-l6-v2")
