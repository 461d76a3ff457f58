"""The shipped registry."""

from __future__ import annotations

import pytest
import yaml

from datacreate.benchmarks import find_benchmark, load_registry
from datacreate.errors import BenchmarkError
from datacreate.formats.task_format import load_format

NAMES = "piqa winogrande csqa riddle_sense boolq_open pubmedqa bioasq boolq_closed strategyqa creak".split()


@pytest.mark.parametrize("name", NAMES)
def test_category_head_options_and_labels_belong_together(name: str) -> None:
    benchmark = find_benchmark(name)
    many = benchmark.head == "multiple_choice"
    assert load_format(benchmark.format_name).options_vary is many
    assert benchmark.category.startswith("mcqa" if many else "yesno")
    assert set(benchmark.out_of_distribution) < set(NAMES)
    assert benchmark.options == (int(benchmark.category[-1]) if many else 2)
    yes_no = {"yesno_open": "yes_no_open_book", "yesno_close": "yes_no_closed_book"}
    assert benchmark.format_name == yes_no.get(benchmark.category, "multiple_choice")


def test_the_counts_are_those_of_the_papers_results(pytestconfig: pytest.Config) -> None:
    results = pytestconfig.rootpath.parent / "shared" / "paper" / "results.yaml"
    if not results.is_file():
        pytest.skip("the paper's results are not beside this checkout")
    said = yaml.safe_load(results.read_text(encoding="utf-8"))
    for name, benchmark in load_registry().items():
        train = said["in_distribution"][name]["train"]
        assert benchmark.rows == {"train": train, **said["rows"][name]}
    pairs = [(pair["train"], pair["test"]) for pair in said["out_of_distribution"]]
    ours = [(one.name, other) for one in load_registry().values() for other in one.out_of_distribution]
    assert sorted(ours) == sorted(pairs)


@pytest.mark.parametrize(
    ("given", "meant"), [("CSQA", "csqa"), ("riddlesense", "riddle_sense"), ("boolq", "boolq_open")]
)
def test_an_unknown_name_suggests_similar_ones(given: str, meant: str) -> None:
    with pytest.raises(BenchmarkError, match=rf"did you mean .*{meant}.*datacreate benchmarks list"):
        find_benchmark(given)
