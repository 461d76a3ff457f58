"""The settings of all filters, in the order in which the filters run: the cheapest first.

To add a filter, write a module with a `Filter` (near.py is an example) and its settings here, and add the settings to
`FILTERS` and to the bases of `FilterSettings`. Options, config.json, reports and docs/cli.md follow from them.
The modules of the filters are imported when a filter is made, so that `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator

from datacreate.messages import Notify, no_notify
from datacreate.settings import OrOff, Settings, setting

if TYPE_CHECKING:
    from datacreate.filters.base import Filter, FilterInputs
    from datacreate.formats.validate import Reason
    from datacreate.selection.embeddings import Embedder

Threshold = Annotated[float | None, OrOff]
"""A similarity above 0 and at most 1; None and the word `off` switch the filter off."""


def quality(help: str, **options: Any) -> Any:
    """A setting in the quality group of `--help`."""
    return setting(help, "quality", **options)


def threshold(help: str, *, default: float | None = None, metavar: str = "SHARE|off") -> Any:
    """A `Threshold` setting."""
    return quality(help, default=default, gt=0, le=1, metavar=metavar)


class BaseFilterSettings(Settings):
    """The settings of one filter: the command line options, config.json and reports are made from them.

    The first setting switches the filter: None, False and () mean off.
    """

    filter_name: ClassVar[str]

    @classmethod
    def setting_names(cls) -> list[str]:
        """The names of the filter's settings."""
        return list(cls.model_fields)

    @classmethod
    def filter_type(cls) -> Any:
        """The class of the filter, a subclass of `Filter`."""
        raise NotImplementedError

    def make(self, inputs: FilterInputs) -> Filter:
        """The filter with these settings. Raises UsageError if `inputs` lacks what it needs."""
        raise NotImplementedError


class ExactSettings(BaseFilterSettings):
    filter_name = "exact"

    exact: bool = quality(
        "Drop examples whose question, or all text if there is none, repeats an earlier one; case, punctuation and "
        "spacing are ignored.",
        default=True,
        flag="--exact/--no-exact",
    )

    @classmethod
    def filter_type(cls) -> Any:
        from datacreate.filters.exact import ExactDuplicates

        return ExactDuplicates

    def make(self, inputs: FilterInputs) -> Filter:
        made: Filter = ExactSettings.filter_type()()
        return made


class NearSettings(BaseFilterSettings):
    filter_name = "near"

    near: Threshold = threshold(
        "Drop examples that share at least this fraction of their word shingles with an earlier one (Jaccard; try "
        "0.7)."
    )

    @classmethod
    def filter_type(cls) -> Any:
        from datacreate.filters.near import NearDuplicates

        return NearDuplicates

    def make(self, inputs: FilterInputs) -> Filter:
        made: Filter = NearSettings.filter_type()(self.near or 0)
        return made


class SemanticSettings(BaseFilterSettings):
    filter_name = "semantic"

    semantic: Threshold = threshold(
        "Drop examples whose sentence embedding has at least this cosine similarity with an earlier example or with "
        "a row of --decontaminate (try 0.95).",
        metavar="COSINE|off",
    )

    @classmethod
    def filter_type(cls) -> Any:
        from datacreate.filters.semantic import SemanticDuplicates

        return SemanticDuplicates

    def make(self, inputs: FilterInputs) -> Filter:
        from datacreate.errors import UsageError

        if inputs.accepted is None:
            raise UsageError("semantic duplicates need an embedding model; name one with --embedding-model")
        made: Filter = SemanticSettings.filter_type()(self.semantic or 0, inputs.accepted)
        return made


def _benchmarks(value: Any) -> Any:
    """`all` as None, `none` as (), and names, which may be separated by commas."""
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else value
    names = tuple(dict.fromkeys(part.strip() for text in texts for part in str(text).split(",")))
    if {"all", "none"} & set(names) and len(names) > 1:
        raise ValueError("all and none cannot be combined with other names")
    return None if names == ("all",) else () if names == ("none",) else names


class ContaminationSettings(BaseFilterSettings):
    filter_name = "contamination"

    decontaminate: Annotated[tuple[str, ...] | None, BeforeValidator(_benchmarks)] = quality(
        "Benchmarks whose dev and test rows examples must not repeat.",
        default=None,
        metavar="all|none|NAME[,NAME...]",
        shown_default="all that are imported",
    )
    ngram: int = quality(
        "Drop examples that share this many consecutive words with a row of --decontaminate.", default=8, ge=2
    )
    decontaminate_near: Threshold = threshold(
        "Drop examples that share at least this fraction of their word shingles with a row of --decontaminate.",
        default=0.7,
    )

    @classmethod
    def filter_type(cls) -> Any:
        from datacreate.filters.contamination import Contamination

        return Contamination

    def make(self, inputs: FilterInputs) -> Filter:
        semantic = getattr(self, "semantic", None)  # the threshold of SemanticSettings
        made: Filter = ContaminationSettings.filter_type()(
            inputs.held_out,
            ngram=self.ngram,
            near=self.decontaminate_near,
            semantic=semantic,
            embedder=inputs.accepted.embedder if inputs.accepted and semantic else None,
            model_sha256=inputs.embedding_sha256,
        )
        return made


FILTERS: tuple[type[BaseFilterSettings], ...] = (
    ExactSettings,
    NearSettings,
    SemanticSettings,
    ContaminationSettings,
)


class FilterSettings(ContaminationSettings, SemanticSettings, NearSettings, ExactSettings):
    """Which filters run, and how strict they are. The bases are `FILTERS` in reverse: pydantic takes the fields of
    the last base first."""


def is_on(part: type[BaseFilterSettings], settings: FilterSettings) -> bool:
    """Whether the filter runs: its first setting is not None, False or ()."""
    return bool(getattr(settings, part.setting_names()[0]))


def make_filters(settings: FilterSettings, inputs: FilterInputs) -> list[Filter]:
    """The filters that are switched on, in order. Raises UsageError if `inputs` lacks what one needs."""
    return [part.make(settings, inputs) for part in FILTERS if is_on(part, settings)]


def prepare_filters(filters: Sequence[Filter], notify: Notify = no_notify) -> None:
    """Prepare all filters before the first example. Raises BenchmarkError if held-out rows cannot be read."""
    for filter in filters:
        filter.prepare(notify)


def filter_report(settings: FilterSettings, rejected: Mapping[Reason, int]) -> list[dict[str, Any]]:
    """All filters in order, with their settings and how many examples each rejected."""
    values = settings.model_dump(mode="json")
    return [
        {
            "name": part.filter_name,
            "reason": (reason := part.filter_type().reason).value,
            "on": is_on(part, settings),
            "settings": {
                name: values[name] for name in part.setting_names() if not isinstance(values[name], bool)
            },
            "rejected": rejected.get(reason, 0),
        }
        for part in FILTERS
    ]


def load_embedder(name_or_path: str) -> tuple[Embedder, str]:
    """An embedding model by preset name or folder, and its SHA-256.

    Raises CheckpointError if it is unknown, not downloaded, or not an embedding model.
    """
    from datacreate.checkpoints import resolve
    from datacreate.selection.embeddings import SentenceEmbedder

    checkpoint = resolve(name_or_path, "encoder")
    return SentenceEmbedder(checkpoint.path), checkpoint.sha256
