"""Several engines as one: fed together, and none of their requests lost when one of them dies."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.engines.base import Completion, Request, Sampling
from datacreate.engines.replicas import Replicas
from datacreate.errors import EngineError
from tests.engines.piped import PipedEngine
from tests.scripted import saying


def request(number: int) -> Request:
    return Request(number, [{"role": "user", "content": f"number {number}"}], None, Sampling(max_tokens=8))


def engine(**settings: object) -> PipedEngine:
    return PipedEngine(script=saying("word"), **settings)  # type: ignore[arg-type]


def started(*engines: PipedEngine, notes: list[str] | None = None) -> Replicas:
    replicas = Replicas(engines, (notes if notes is not None else []).append)
    replicas.start()
    return replicas


def all_answers(replicas: Replicas, number: int) -> list[Completion]:
    """Ask so many, as far as the joint capacity allows at a time, until nothing is out."""
    due, out, answers = list(range(number)), 0, []
    while due or out:
        while due and out < replicas.capacity:
            replicas.submit(request(due.pop(0)))
            out += 1
        came = replicas.poll(1.0)
        out -= len(came)
        answers += came
    return answers


def test_what_is_asked_of_one_is_asked_of_the_first_and_capacity_is_the_sum() -> None:
    replicas = Replicas([engine(capacity=3), engine(capacity=5)])
    assert replicas.capacity == 8
    assert replicas.max_context == 4096
    assert replicas.count_tokens([{"role": "user", "content": "x" * 40}]) == 10
    assert replicas.tells_apart(["yes", "no"])
    assert replicas.copies == replicas.settings["replicas"] == 2


def test_all_are_checked_together_and_launched_before_one_is_waited_for() -> None:
    slow, fast = engine(loads_at_once=False), engine()

    class LoadsWithTheOther(PipedEngine):
        def launch(self) -> None:
            super().launch()
            slow.finish_loading()

    last = LoadsWithTheOther()
    replicas = started(slow, fast, last)
    assert [each.checked_for for each in (slow, fast, last)] == [3, 3, 3]
    assert replicas.members == (slow, fast, last)


def test_each_request_goes_to_the_engine_with_the_least_to_do() -> None:
    engines = [engine(), engine(), engine()]
    replicas = started(*engines)
    for number in range(6):
        replicas.submit(request(number))
    assert [[asked.id for asked in each.history] for each in engines] == [[0, 3], [1, 4], [2, 5]]


def test_what_no_engine_has_room_for_waits() -> None:
    engines = [engine(capacity=1), engine(capacity=1)]
    replicas = started(*engines)
    for number in range(5):
        replicas.submit(request(number))
    assert [len(each.history) for each in engines] == [1, 1]
    answers: list[int] = []
    while len(answers) < 5:
        answers += [completion.request_id for completion in replicas.poll(1.0)]
    assert sorted(answers) == [0, 1, 2, 3, 4]


def test_waiting_asks_no_engine_that_has_nothing_to_say() -> None:
    engines = [engine(), engine()]
    replicas = started(*engines)
    began = time.monotonic()
    assert replicas.poll(0.05) == []
    assert time.monotonic() - began >= 0.05
    replicas.submit(request(0))
    assert [completion.request_id for completion in replicas.poll(60.0)] == [0]
    assert [each.polled for each in engines] == [1, 0]
    assert time.monotonic() - began < 30.0


def test_what_a_dead_engine_had_in_flight_is_asked_again_and_it_is_started_again() -> None:
    notes: list[str] = []
    dying, other = engine(lives=(3,)), engine()
    answers = all_answers(started(dying, other, notes=notes), 40)
    assert sorted(answer.request_id for answer in answers) == list(range(40))
    assert dying.launched == 2
    assert notes[0].startswith("engine 1 of 2 died: the model's process ended (life 1): out of luck; it is ")
    assert notes[1:] == ["engine 1 of 2 is back"]


def test_while_one_is_loading_again_the_others_go_on_and_are_fed() -> None:
    dying, other = engine(lives=(1,)), engine()
    replicas = started(dying, other)
    dying.loads_at_once = False
    answers = all_answers(replicas, 40)
    assert sorted(answer.request_id for answer in answers) == list(range(40))
    assert replicas.members == (other,)
    assert replicas.capacity == other.capacity
    dying.finish_loading()
    replicas.poll(0.0)
    assert replicas.members == (dying, other)
    assert sorted(a.request_id for a in all_answers(replicas, 9)) == list(range(9))


def test_an_engine_that_comes_back_takes_what_waits_at_once() -> None:
    dying, other = engine(lives=(2,)), engine()
    replicas = started(dying, other)
    dying.loads_at_once = False
    for number in range(30):
        replicas.submit(request(number))
    while dying in replicas.members:
        replicas.poll(1.0)
    before = len(dying.history)
    dying.finish_loading()
    replicas.poll(0.0)
    assert len(dying.history) == before + dying.capacity


def test_an_engine_that_dies_twice_is_left_and_the_run_goes_on_with_the_rest() -> None:
    notes: list[str] = []
    dying, other = engine(lives=(3, 3)), engine()
    replicas = started(dying, other, notes=notes)
    answers = all_answers(replicas, 40)
    assert sorted(answer.request_id for answer in answers) == list(range(40))
    assert dying.launched == 2
    assert dying.closed
    assert replicas.capacity == 4
    assert notes[-1] == (
        "engine 1 of 2 died again: the model's process ended (life 2): out of luck; going on with the other 1"
    )


def test_when_none_is_left_the_last_one_s_death_is_the_error() -> None:
    with pytest.raises(EngineError, match=r"life 2.*run again to go on"):
        all_answers(started(engine(lives=(3, 3)), engine(lives=(3, 3))), 40)


def test_when_all_are_loading_again_nothing_is_lost() -> None:
    engines = [engine(lives=(3,)), engine(lives=(3,))]
    answers = all_answers(started(*engines), 40)
    assert sorted(answer.request_id for answer in answers) == list(range(40))
    assert [each.launched for each in engines] == [2, 2]


def test_one_that_dies_while_it_loads_is_started_again_while_the_others_begin() -> None:
    notes: list[str] = []
    dying, other = engine(lives=(0,)), engine()
    replicas = started(dying, other, notes=notes)
    assert replicas.members == (other,)
    assert "engine 1 of 2 died" in notes[0]
    assert sorted(a.request_id for a in all_answers(replicas, 20)) == list(range(20))
    assert replicas.members == (dying, other)


def test_when_all_die_while_they_load_none_is_started_again() -> None:
    engines = [engine(lives=(0,)), engine(lives=(0,))]
    with pytest.raises(EngineError, match="life 1"):
        started(*engines)
    assert [each.launched for each in engines] == [1, 1]


def test_requests_that_were_given_up_give_no_answer() -> None:
    engines = [engine(capacity=2), engine(capacity=2)]
    replicas = started(*engines)
    for number in range(8):
        replicas.submit(request(number))
    replicas.abort([0, 1, 2, 6, 99])
    answers: list[int] = []
    while len(answers) < 4:
        answers += [completion.request_id for completion in replicas.poll(1.0)]
    assert sorted(answers) == [3, 4, 5, 7]
    assert sorted(number for each in engines for number in each.aborted) == [0, 1, 2]
    assert replicas.poll(0.0) == []


def test_giving_up_what_a_dead_engine_holds_is_no_error() -> None:
    class Refuses(PipedEngine):
        def abort(self, request_ids: object) -> None:
            raise EngineError("the model's process ended (code 1): gone; run again to go on")

    replicas = started(Refuses())
    replicas.submit(request(0))
    replicas.abort([0])
    replicas.close()


def test_closing_closes_all_and_may_be_done_twice() -> None:
    engines = [engine(), engine()]
    replicas = started(*engines)
    replicas.close()
    replicas.close()
    assert all(each.closed for each in engines)


@given(
    lives=st.lists(st.lists(st.integers(1, 9), max_size=2).map(tuple), min_size=1, max_size=4),
    number=st.integers(1, 60),
)
def test_whenever_engines_die_each_request_is_answered_once(
    lives: list[tuple[int, ...]], number: int
) -> None:
    engines = [engine(lives=each, seed=at) for at, each in enumerate(lives)]
    immortal = engine()
    answers = all_answers(started(*engines, immortal), number)
    assert sorted(answer.request_id for answer in answers) == list(range(number))
    assert all(each.launched <= 2 for each in engines)
