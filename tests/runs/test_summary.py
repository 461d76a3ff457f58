"""summary.json: the same keys as in earlier versions, and what is read of older files."""

from __future__ import annotations

import json
from pathlib import Path

from datacreate.runs.directory import RunDirectory
from datacreate.runs.stats import summary_fields
from tests.support.making import make

KEYS = (
    "strategy model license formatting_examples shots requested accepted finished rejected requests prompt_tokens "
    "generated_tokens thinking_tokens tokens_per_example seconds examples_per_second tokens_per_second depths labels "
    "attributes generators verification review depth_warning filters compared_with"
)


def test_a_summary_has_these_keys_in_this_order(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path, model, count=10)
    assert " ".join(summary) == " ".join(json.loads((tmp_path / "summary.json").read_bytes())) == KEYS
    summary = make(tmp_path / "other", model, count=10, instruction="Ask about animals.")
    assert " ".join(summary) == KEYS.replace("license", "license instruction")


def test_counts_of_numbers_and_of_names_with_commas_can_be_read(tmp_path: Path, model: str) -> None:
    counts = {"labels": {"1": 3, "Politics, US": 2}, "rejected": {"blank": 4}, "attributes": {"tone": {"dry": 5}}}
    fields = summary_fields(make(tmp_path, model, count=10) | counts)
    assert fields["labels"] == "1: 3, Politics, US: 2"
    assert (fields["rejected"], fields["attributes"]) == ("blank: 4", "tone (dry: 5)")


def test_summaries_of_other_versions_are_read(tmp_path: Path, model: str) -> None:
    run = RunDirectory(tmp_path)
    make(tmp_path, model, count=10)
    for summary in ({"accepted": 10}, {"accepted": 10, "review": None, "new": [1]}):
        run.summary_path.write_text(json.dumps(summary))
        assert run.is_finished(10)
    run.summary_path.write_text("{}")
    assert not run.is_finished(10)
