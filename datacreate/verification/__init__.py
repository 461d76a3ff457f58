"""Verification: a model scores the possible labels of examples without seeing the assigned one.

This module has the scores, and the label that an example gets by them; label_noise.py has the label-noise check and the
calibration of the verifier. `score_labels` is for rows that exist; a run scores its examples while it generates, in
`datacreate.creation.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from datacreate.formats.example import Json

if TYPE_CHECKING:
    from datacreate.engines.model_client import ModelClient
    from datacreate.prompts.label_scoring import LabelPrompt

VerifyMode = Literal["off", "keep", "drop", "relabel", "soft"]
"""The use of the scores of an example. `keep`: only log the scores. `drop`: reject the example unless its
label is the most probable. `relabel`: replace the label by the most probable. `soft`: keep all examples, with the
probabilities as soft labels."""

Probabilities = tuple[float, ...]  # one per possible label; they add up to 1

NO_SCORES = "the verifier returned no scores"  # the detail of a reject that could not be scored
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Scored:
    """The verifier's result for one example. Labels are indices of the possible labels."""

    assigned: int | None  # the label the text was written for; None if it was written without one
    final: int | None  # the label after verification; None if the example is rejected, or waits
    accepted: bool  # whether the example is in the training set
    probabilities: Probabilities  # of the verifier, not calibrated; rounded to four decimals


def final_label(
    mode: VerifyMode, assigned: int | None, probabilities: Probabilities, tie_breaker: int = 0
) -> int | None:
    """The label that an example gets; None if it is rejected.

    An example without a label (`assigned` is None) gets the most probable one. An assigned label wins ties. Other ties
    are decided by `tie_breaker`, so that a verifier that prefers no label does not give all examples the same one.
    """
    highest = max(probabilities)
    if assigned is not None:
        if mode in ("keep", "soft") or probabilities[assigned] == highest:
            return assigned
        if mode == "drop":
            return None
    best = [label for label, probability in enumerate(probabilities) if probability == highest]
    return best[tie_breaker % len(best)]


def round_probabilities(probabilities: Sequence[float]) -> Probabilities:
    """The probabilities rounded as in the log. Decisions use rounded values, so that a replay decides alike."""
    return tuple(round(probability, 4) for probability in probabilities)


def disagreement(options: Sequence[Json], assigned: int | None, probabilities: Probabilities) -> str:
    """The detail of a reject by the verifier: `label no; the verifier: yes 0.90, no 0.10`."""
    shown = ", ".join(f"{option} {p:.2f}" for option, p in zip(options, probabilities, strict=True))
    return f"{'' if assigned is None else f'label {options[assigned]}; '}the verifier: {shown}"


def score_labels(
    client: ModelClient, label_prompts: Sequence[tuple[LabelPrompt, str]], on_progress: Callable[[int], None]
) -> list[Probabilities | None]:
    """The probabilities of the options of each label prompt; None where the server returned no scores.

    Each prompt comes with the seed of its option permutations. `on_progress` gets the number of finished
    prompts; an exception that it raises ends the scoring.
    """
    # The settings import this module for `VerifyMode`, and `--help` must be fast.
    from datacreate.engines.request import scoring_request
    from datacreate.prompts.label_scoring import PermutedPrompt

    permuted = [PermutedPrompt(prompt, seed) for prompt, seed in label_prompts]
    requests = [(prompt, permutation) for prompt in permuted for permutation in prompt.permutations]
    waiting = enumerate(requests)
    in_flight = done = 0
    while done < len(requests):
        on_progress(done * len(label_prompts) // len(requests))
        while in_flight < client.max_in_flight and (following := next(waiting, None)) is not None:
            request_id, (prompt, permutation) = following
            client.submit(scoring_request(request_id, *prompt.messages_and_choices(permutation)))
            in_flight += 1
        for completion in client.poll(_POLL_SECONDS):
            prompt, permutation = requests[completion.request_id]
            prompt.add_scores(permutation, completion.scores)
            in_flight, done = in_flight - 1, done + 1
    on_progress(len(label_prompts))
    return [prompt.mean_scores() for prompt in permuted]
