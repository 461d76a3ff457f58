"""Which filters a run's examples pass, and how strict they are: part of what decides the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from datacreate.formats.validate import Reason
from datacreate.settings import OrOff, Settings, setting

ShareOrOff = Annotated[float | None, OrOff]


def _quality(help: str, **options: Any) -> Any:
    return setting(help, "quality", **options)


class FilterThresholds(Settings):
    """How strict each filter is, in the order in which the filters run. None switches one off."""

    exact: bool = _quality(
        "Drop examples with the text of an earlier one; case, punctuation and spacing are ignored.",
        default=True,
        flag="--exact/--no-exact",
    )
    near: ShareOrOff = _quality(
        "Drop examples that share this part of their word shingles with an earlier one (Jaccard; try 0.7).",
        default=None,
        gt=0,
        le=1,
        metavar="SHARE|off",
    )
    semantic: ShareOrOff = _quality(
        "Drop examples whose sentence embedding has this cosine similarity with an earlier one (try 0.95).",
        default=None,
        gt=0,
        le=1,
        metavar="COSINE|off",
    )
    ngram: int = _quality(
        "Drop examples that repeat so many consecutive words of a row of --decontaminate.", default=8, ge=2
    )
    decontaminate_near: ShareOrOff = _quality(
        "Drop examples that share this part of their word shingles with a row of --decontaminate.",
        default=0.7,
        gt=0,
        le=1,
        metavar="SHARE|off",
    )


class FilterSettings(FilterThresholds):
    """The filters of a run."""

    decontaminate: tuple[str, ...] = ()  # benchmarks whose dev and test rows must not be repeated


def _benchmarks(value: Any) -> Any:
    """`all` as None, `none` as (), and names, also with commas between them."""
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else value
    names = tuple(dict.fromkeys(part.strip() for text in texts for part in str(text).split(",")))
    if {"all", "none"} & set(names) and len(names) > 1:
        raise ValueError("all and none cannot be combined with other names")
    return None if names == ("all",) else () if names == ("none",) else names


class FilterOptions(FilterThresholds):
    """The filters as a user sets them."""

    decontaminate: Annotated[tuple[str, ...] | None, BeforeValidator(_benchmarks)] = _quality(
        "Benchmarks whose dev and test rows examples must not repeat.",
        default=None,
        metavar="all|none|NAME[,NAME...]",
        shown_default="all that are imported",
    )
    embedding_model: str = _quality(
        "Sentence embedding model for similarity (--semantic; strategies diverse, similar, coverage): preset or "
        "folder.",
        default="all-mpnet-base-v2",
    )


class DatasetFilterOptions(FilterOptions):
    """The filters of `datacreate filter`."""

    near: ShareOrOff = _quality(
        "Drop rows that share this part of their word shingles with an earlier one (Jaccard).",
        default=0.7,
        gt=0,
        le=1,
        metavar="SHARE|off",
    )
    balance: bool = _quality("Keep as many rows of each label as the rarest label has.", default=False)


def filter_report(
    settings: FilterSettings, dropped: Mapping[Reason, int], encoder: str | None
) -> list[dict[str, Any]]:
    """All filters in order, as a report has them: name, threshold, and how many examples each rejected.

    A filter that is switched off has `on` false.
    """
    semantic = {"threshold": settings.semantic} | ({"encoder": encoder} if settings.semantic else {})
    filters: list[tuple[str, Reason, bool, dict[str, Any]]] = [
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
        for name, reason, on, details in filters
    ]
