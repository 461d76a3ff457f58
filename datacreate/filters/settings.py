"""Which filters a run's examples pass, and how strict they are: part of what decides the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from datacreate.formats.validate import Reason


class FilterSettings(BaseModel):
    """The filters, in the order in which they are asked. None and () switch one off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exact: bool = True  # the same text, case, punctuation and spacing aside
    near: float | None = Field(default=None, gt=0, le=1)  # share of word shingles in common (Jaccard)
    semantic: float | None = Field(default=None, gt=0, le=1)  # cosine of sentence embeddings
    decontaminate: tuple[
        str, ...
    ] = ()  # benchmarks whose dev and test rows must not be repeated; `all` resolved
    ngram: int = Field(default=8, ge=2)  # words in a row that make a repeat of such a row
    decontaminate_near: float | None = Field(default=0.7, gt=0, le=1)  # as `near`, against such rows


def filter_report(
    settings: FilterSettings, dropped: Mapping[Reason, int], encoder: str | None
) -> list[dict[str, Any]]:
    """The filters in order, as a report has them: name, threshold, and how many examples each rejected.

    All are there; one that is switched off has `on` false.
    """
    semantic = {"threshold": settings.semantic} | ({"encoder": encoder} if settings.semantic else {})
    told: list[tuple[str, Reason, bool, dict[str, Any]]] = [
        ("exact", Reason.DUPLICATE, settings.exact, {}),
        ("near", Reason.NEAR_DUPLICATE, settings.near is not None, {"threshold": settings.near}),
        ("semantic", Reason.SEMANTIC_DUPLICATE, settings.semantic is not None, semantic),
        (
            "contamination",
            Reason.CONTAMINATED,
            bool(settings.decontaminate),
            {"ngram": settings.ngram, "near": settings.decontaminate_near, "semantic": settings.semantic}
            | {"decontaminate": list(settings.decontaminate)},
        ),
    ]
    return [
        {"name": name, "reason": reason.value, "on": on, **details, "rejected": dropped.get(reason, 0)}
        for name, reason, on, details in told
    ]
