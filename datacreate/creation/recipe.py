"""What a recipe decides: the `Method` of a run, and the settings that the user leaves open.

The other modules of a run read the fields of a `Method`. runs/config.py refuses options that the paper's recipe lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.creation.run_models import RunModels, embedding_model_of, thinking_limit
from datacreate.engines.request import Sampling
from datacreate.errors import NotDownloaded, UsageError
from datacreate.formats.prompt_encoding import Style
from datacreate.formats.task_format import TaskFormat
from datacreate.prompts.label_scoring import MAX_LETTERS, can_score_labels, check_scorable
from datacreate.runs.config import AUTO, CreateConfig, CreateRecipe, RunSpec
from datacreate.verification import VerifyMode


@dataclass(frozen=True)
class Method:
    """How a run creates examples, as its recipe says."""

    # Defaults of options.
    prefers_coverage: bool = False  # --strategy is coverage if the embedding model is downloaded, else tree
    verifies: bool = False  # --verify is drop if the answers can be scored, else off
    decontaminate: tuple[str, ...] = ("all",)
    is_sequential: bool = False  # --concurrency and --num-chains are 1, else as large as servers and count allow
    uses_presets: bool = True  # the sampling settings are those of the preset of the model

    # No option changes these.
    style: Style = "positional"  # how examples are written in the prompt and the response
    assigns_labels: bool = True  # labels have quotas, and each request is assigned labels
    keeps_complete_items: bool = True  # the complete items of a truncated response are used
    completes_levels: bool = False  # the strategy tree finishes a level before the next one
    needs_one_example: bool = False  # there cannot be several formatting examples


METHODS: dict[CreateRecipe, Method] = {
    "best": Method(prefers_coverage=True, verifies=True),
    "fast": Method(),
    "paper": Method(
        decontaminate=(),
        is_sequential=True,
        uses_presets=False,
        style="keyed",
        assigns_labels=False,
        keeps_complete_items=False,
        completes_levels=True,
        needs_one_example=True,
    ),
}


def choose_strategy(config: CreateConfig, stored: RunSpec | None) -> str:
    """The name of the strategy of the user, else of the existing run, else of the recipe.

    Raises CheckpointError if the recipe prefers coverage and the embedding model is damaged.
    """
    if config.strategy != AUTO:
        return config.strategy
    if stored:
        return stored.strategy
    return "coverage" if METHODS[config.recipe].prefers_coverage and _has_embedder(config) else "tree"


def _has_embedder(config: CreateConfig) -> bool:
    """Whether the embedding model is on this machine. Raises CheckpointError if it is damaged."""
    try:
        embedding_model_of(config)
    except NotDownloaded:
        return False
    return True


def verify_mode(config: CreateConfig, task_format: TaskFormat) -> VerifyMode:
    """The mode of verification: of the user, else `drop` with --verifier, else of the recipe.

    Raises UsageError if verification is requested and the labels cannot be scored.
    """
    requested = config.verify or ("drop" if config.verifier else None)
    if requested is None:
        # Many labels can be scored only if no two start with the same token, which the model decides.
        can_score = can_score_labels(task_format, scored_by_letter=True)
        return "drop" if METHODS[config.recipe].verifies and can_score else "off"
    if requested == "off":
        return requested
    if requested == "relabel" and task_format.roles.tools:
        raise UsageError(
            "--verify relabel: a call cannot be relabeled (other functions take other arguments); use --verify drop"
        )
    flag = f"--verify {config.verify}" if config.verify else f"--verifier {config.verifier}"
    check_scorable(task_format, flag)
    return requested


def sampling_of(
    config: CreateConfig, checkpoint: Checkpoint, max_tokens: int, longest_text: int | None = None
) -> Sampling:
    """The sampling settings of a generator: of the user, else of its preset; None for the default of the server.

    The recipe of the paper ignores the preset. `max_tokens` and `longest_text` are the limits if the user sets none, in
    tokens of a completion and characters of one text.
    """
    sampling = Sampling(max_tokens, thinking_limit(config, checkpoint) or None, longest_text)
    if checkpoint.preset and METHODS[config.recipe].uses_presets:
        sampling = replace(sampling, **checkpoint.preset.sampling.model_dump(exclude_none=True))
        if sampling.thinking and checkpoint.thinking:
            sampling = replace(sampling, **checkpoint.thinking.sampling.model_dump(exclude_none=True))
    names = {field.name for field in fields(Sampling)} - {"thinking"}
    return replace(sampling, **config.model_dump(include=names, exclude_none=True))


def describe_recipe(config: CreateConfig, verify: VerifyMode, task_format: TaskFormat, models: RunModels | None) -> str:
    """The strategy and verification of a run in one line for the user. `models` is None if only a server knows them."""
    verification = _describe_verification(config, verify, task_format, models)
    if config.improves:
        return f"strategy {config.strategy}, as always for improve; {verification}"
    line = f"recipe {config.recipe}: strategy {config.strategy}, {verification}"
    if METHODS[config.recipe].prefers_coverage and config.strategy == "tree" and not _has_embedder(config):
        line += f"; for the strategy coverage: `datacreate models pull {config.embedding_model}`"
    return line


def _describe_verification(
    config: CreateConfig, verify: VerifyMode, task_format: TaskFormat, models: RunModels | None
) -> str:
    if verify != "off":
        if models and not models.verifier:
            reason = f"{models.generators[0].name} always thinks, so it cannot score them"
            return f"answers are not verified: {reason}; a --verifier that does not think can"
        verifier = models.verifier.name if models and models.verifier else config.verifier or "the generator"
        return f"answers verified by {verifier} ({verify})"
    if not task_format.roles.answer:
        return "no answer field found, so nothing is verified or balanced"
    if not can_score_labels(task_format):
        return "answers cannot be verified (free text)"
    if METHODS[config.recipe].verifies and config.verify is None:
        return f"answers are not verified; --verify drop tries it with more than {MAX_LETTERS} labels"
    return "answers are not verified"
