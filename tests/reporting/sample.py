"""A report with untrusted text in every place that a model, a server or a folder name can reach."""

from __future__ import annotations

from typing import Any

from datacreate.intervals import IntervalEstimate
from datacreate.reporting.results import Comparison, ConditionResult, MeanPGR, Report, ResultTable

HOSTILE = (
    '<script>document.title = "owned"</script>',
    '</script><script>document.body.className = "owned"</script>',
    '<img src="http://127.0.0.1:9/pixel.png" onerror="alert(1)">',
    "</style><style>body { display: none }</style>",
    '"><svg onload=alert(1)><a href="javascript:alert(1)">click</a>',
    "{{ 7 * 7 }} {% raw %} ${7*7} %{x}",
    "<!-- <b>bold</b> &lt;i&gt; &amp; ]]>",
    "a | b\n| c | **bold** [link](http://x) `code`",
    "a\u202egnp.exe \u2066hidden\u2069",
    "bell\u0007 null\u0000 escape\u001b[31mred",
    "line\u2028separator\u2029here\u0085next",
    "half \ud800 of a character",
)


def sample_report(text: str = "tree") -> Report:
    """Two test sets, two conditions of which one is named `text`, two sizes, one run."""
    results = tuple(
        _result(test, condition, count)
        for test in ("csqa", "creak")
        for condition in ("human", text)
        for count in (100, 400)
    )
    compared = Comparison(
        test_set="creak",
        first="human",
        second=text,
        difference=IntervalEstimate(0.1, 0.01, 0.19),
        covers="seeds, rows",
        mde=0.13,
        p=0.03,
        p_holm=0.06,
        is_significant=False,
    )
    mean = MeanPGR(condition=text, count=100, tests=2, tests_without_pgr=(text,), pgr=IntervalEstimate(0.8, 0.6, 1.1))
    setup: Any = (text, "ab" * 32, "datacreate", "held-out", text)
    table = ResultTable("in", *setup, results, (compared,), (mean,))
    summary: dict[str, Any] = {"strategy": "tree", "model": text, "accepted": 40, "requested": 40, "seconds": 26.7}
    summary |= {"labels": {text: 40}, "depths": {"1": 40}, "rejected": {"duplicate": 2}, "attributes": {}}
    summary |= {"formatting_examples": 1, "shots": 1, "compared_with": []}
    summary |= {"requests": 8, "generated_tokens": 100, "tokens_per_example": 2.5, "tokens_per_second": 3.7}
    summary |= {"examples_per_second": 1.5, "verification": None, "review": None}
    return Report("0.1", (text,), 8, (table,), {f"runs/{text}": summary}, {text: text}, "A paper.")


def _result(test: str, condition: str, count: int) -> ConditionResult:
    fields: dict[str, Any] = dict.fromkeys(("trained_for", "test", "test_digest"), test)
    fields |= {"split": "test", "condition": condition, "count": count, "has_all_rows": count == 400}
    fields |= {
        "test_rows": 500,
        "classes": 2,
        "constant_accuracy": 0.5,
        "models": 3,
        "examples": 1,
        "training_sets": 1,
        "seeds": 3,
    }
    fields |= {"score": IntervalEstimate(0.2, 0.1, 0.25), "accuracy": IntervalEstimate(0.6, 0.55, 0.65)}
    fields |= {"sd_seeds": 0.02, "paper_accuracy": 0.7, "sources": ("a",)}
    return ConditionResult(**fields, degenerate_models=1, models_not_above_chance=2)
