"""The slice that chooses the best model: a tenth, the same labels, no family on both sides."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.finetuning.rows import FEWEST, HELD_OUT, Question, Task, hold_out

OPTIONS = Task(head="multiple_choice", names=("0", "1", "2"))
LABELS = Task(head="sequence_classification", names=("yes", "no", "maybe"))
unhurried = settings(max_examples=50)  # sklearn is imported in the first

TASKS = st.sampled_from([OPTIONS, LABELS])


def questions(answers: list[int]) -> list[Question]:
    return [Question(f"q {place}", None, (), answer) for place, answer in enumerate(answers)]


@unhurried
@given(TASKS, st.lists(st.integers(0, 2), max_size=FEWEST - 1))
def test_of_a_small_set_nothing_is_held_out(task: Task, answers: list[int]) -> None:
    rows = questions(answers)
    assert hold_out(rows, ["one"] * len(rows), task) == (list(range(len(rows))), [])


@unhurried
@given(
    TASKS,
    st.integers(FEWEST, 400),
    st.integers(1, 7),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_about_a_tenth_is_held_out_whatever_the_families(
    task: Task, total: int, each: int, large: float, rng: Random
) -> None:
    answers = [rng.randrange(3) for _ in range(total)]
    families = ["root" if place < large * total else str(place // each) for place in range(total)]
    rng.shuffle(families)
    kept, held = hold_out(questions(answers), families, task)
    assert sorted(kept + held) == list(range(total))
    assert total / HELD_OUT * 0.5 <= len(held) <= total / HELD_OUT * 2


@unhurried
@given(st.integers(100, 400), st.integers(1, 5), TASKS)
def test_families_stay_together_where_there_are_enough(total: int, each: int, task: Task) -> None:
    families = [str(place // each) for place in range(total)]
    kept, held = hold_out(questions([place % 3 for place in range(total)]), families, task)
    assert not {families[i] for i in kept} & {families[i] for i in held}


@unhurried
@given(st.integers(100, 400), st.floats(0.1, 0.9), st.randoms(use_true_random=False))
def test_labels_keep_their_shares(total: int, share: float, rng: Random) -> None:
    answers = [int(place < share * total) for place in range(total)]
    rng.shuffle(answers)
    _, held = hold_out(questions(answers), [str(place) for place in range(total)], LABELS)
    there = Counter(answers[i] for i in held)[1] / len(held)
    assert abs(there - sum(answers) / total) <= 1.5 / len(held)


def test_one_family_is_split_row_by_row() -> None:
    kept, held = hold_out(questions([0, 1] * 50), ["root"] * 100, LABELS)
    assert (len(kept), len(held)) == (90, 10)


def test_the_same_rows_are_held_out_every_time() -> None:
    rows = questions([0, 1, 2] * 40)
    families = [str(place // 3) for place in range(120)]
    assert hold_out(rows, families, LABELS) == hold_out(rows, families, LABELS)
    assert hold_out(rows, families, LABELS) != hold_out(rows, families, LABELS, seed=1)
