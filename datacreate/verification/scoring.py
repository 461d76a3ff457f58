"""Many questions to a model at once: how probable it finds each of their options.

Nothing is written: the engine scores the options, in two orders, since the order sways small models.
Used where all questions are known beforehand; a run that writes meanwhile has its own `pipeline`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from datacreate.engines.base import Engine, scoring
from datacreate.prompts.label_scoring import NUM_PERMUTATIONS, LabelQuestion, average, option_permutations

_POLL_SECONDS = 0.5


def score(
    engine: Engine, questions: Sequence[tuple[LabelQuestion, str]], look: Callable[[int], None]
) -> list[tuple[float, ...] | None]:
    """The probabilities of each question's options; None where the model gave none.

    Beside each question stands what seeds its orders. `look` is told now and then how many are done; what it
    raises ends it all.
    """
    turns = [
        (number, question, order)
        for number, (question, seed) in enumerate(questions)
        for order in option_permutations(len(question.options), seed)
    ]
    found: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    waiting = enumerate(turns)
    in_flight = done = 0
    while done < len(turns):
        look(done // NUM_PERMUTATIONS)
        while in_flight < engine.capacity and (following := next(waiting, None)) is not None:
            request, (_, question, order) = following
            engine.submit(scoring(request, *question.prompt(order)))
            in_flight += 1
        for completion in engine.poll(_POLL_SECONDS):
            number, question, order = turns[completion.request_id]
            if completion.scores:
                found[number].append(question.unpermute(order, completion.scores))
            in_flight, done = in_flight - 1, done + 1
    look(len(questions))
    return [average(found[i]) if len(found[i]) == NUM_PERMUTATIONS else None for i in range(len(questions))]
