"""The example's causal machinery on gates worked out by hand, and the paper's equations, each derived from it."""

from __future__ import annotations

import random

import pytest
from examples.causal_preemption import (
    Equation,
    Model,
    formula,
    ideal,
    independent,
    is_cause,
    main,
    natural_beams,
    natural_sets,
    preemption,
    probability_of_cause,
    revealing_beams,
    settings,
    several,
    solve,
    sustaining_sets,
)

AND = Equation(("a", "b"), lambda s: s["a"] & s["b"])
OR = Equation(("a", "b"), lambda s: s["a"] | s["b"])
BOTH = {"m1": 1, "m2": 1}


def formulas(model: Model) -> dict[str, str]:
    return {name: formula(equation) for name, equation in model.items()}


@pytest.mark.parametrize(
    ("gate", "a", "b", "sustaining", "natural"),
    [
        (AND, 1, 1, [("a", "b")], [("a", "b")]),
        # One false input fixes the output; it can be changed by that input only because the other is true.
        (AND, 0, 1, [("a",), ("a", "b")], [("a",), ("a", "b")]),
        (AND, 0, 0, [("a",), ("b",), ("a", "b")], [("a", "b")]),
        (OR, 1, 0, [("a",), ("a", "b")], [("a",), ("a", "b")]),
        (OR, 1, 1, [("a",), ("b",), ("a", "b")], [("a", "b")]),
    ],
)
def test_sustaining_sets_of_gates_by_hand(
    gate: Equation, a: int, b: int, sustaining: list[tuple[str, ...]], natural: list[tuple[str, ...]]
) -> None:
    assert sustaining_sets(gate, {"a": a, "b": b}) == sustaining
    assert natural_sets(gate, {"a": a, "b": b}) == natural


@pytest.mark.parametrize("u", [0, 1])
@pytest.mark.parametrize("printed", [False, True])
def test_preemption_leaves_the_disjunction_as_it_is(u: int, printed: bool) -> None:
    for context in settings(("m1", "m2")):
        f = solve(preemption(printed=printed), {"u": u, **context})["f"]
        assert f == solve(ideal(), context)["f"] == max(context.values())  # Eqs. 8 and 10


def test_u_1_is_equation_9_and_as_printed_it_is_its_mirror() -> None:
    for m in settings(("m1", "m2")):
        first = (m["m1"], (1 - m["m1"]) & m["m2"])
        second = (m["m1"] & (1 - m["m2"]), m["m2"])
        for u, expected in ((1, first), (0, second)):
            mended = solve(preemption(), {"u": u, **m})
            printed = solve(preemption(printed=True), {"u": 1 - u, **m})
            assert (mended["e1"], mended["e2"]) == (printed["e1"], printed["e2"]) == expected


@pytest.mark.parametrize(
    ("u", "beam", "cause", "other"),
    [
        (1, {"e1": "m1", "e2": "m1'", "f": "e1"}, "m1", "m2"),  # Eqs. 12 and 13
        (0, {"e1": "m2'", "e2": "m2", "f": "e2"}, "m2", "m1"),  # Eqs. 14 and 15
    ],
)
def test_the_beam_and_the_cause_where_both_are_present(u: int, beam: dict[str, str], cause: str, other: str) -> None:
    model, context = preemption(), {"u": u, **BOTH}
    found = natural_beams(model, context)
    assert formulas(found[0]) == beam
    assert [solve(found[0], context, {cause: value})["f"] for value in (1, 0)] == [1, 0]
    assert [solve(found[0], context, {other: value})["f"] for value in (1, 0)] == [1, 1]
    assert is_cause(model, context, cause)
    assert not is_cause(model, context, other)  # in none of the eight beams
    assert len(found) == 8
    # Definition 3.5 speaks of "the" natural beam, but only half of them show the cause.
    assert len(revealing_beams(model, context, cause)) == 4


def test_as_printed_equation_11_turns_the_causes_round() -> None:
    for u in (0, 1):
        context = {"u": u, **BOTH}
        assert is_cause(preemption(printed=True), context, "m2" if u else "m1")
        assert not is_cause(preemption(printed=True), context, "m1" if u else "m2")


def test_every_beam_agrees_with_the_model_where_it_was_made() -> None:
    for context in settings(("u", "m1", "m2")):
        for beam in natural_beams(preemption(), context):
            assert solve(beam, context) == solve(preemption(), context)


def test_a_modality_alone_is_the_cause_whoever_preempts() -> None:
    for u in (0, 1):
        assert is_cause(preemption(), {"u": u, "m1": 1, "m2": 0}, "m1")
        assert is_cause(preemption(), {"u": u, "m1": 0, "m2": 1}, "m2")


def test_without_preemption_two_present_modalities_are_no_cause() -> None:
    assert not is_cause(ideal(), BOTH, "m1")
    assert not is_cause(ideal(), BOTH, "m2")
    assert is_cause(ideal(), {"m1": 1, "m2": 0}, "m1")


def test_an_absent_modality_is_called_a_cause() -> None:
    context = {"u": 0, "m1": 1, "m2": 0}
    assert revealing_beams(preemption(), context, "m2")  # f = e1 = m2' there
    assert solve(preemption(), context, {"m2": 1})["f"] == 1  # yet f would be 1 with it as well
    assert not is_cause(preemption(), context, "m2")


def test_probability_of_cause_is_that_of_u_where_both_are_present() -> None:
    draw = random.Random(0)
    for _ in range(5):
        u, m1, m2 = (draw.uniform(0.05, 0.95) for _ in range(3))
        contexts = independent(u=u, m1=m1, m2=m2)
        assert probability_of_cause(preemption(), contexts, "m1", BOTH) == pytest.approx(u)  # Eq. 16
        assert probability_of_cause(preemption(), contexts, "m2", BOTH) == pytest.approx(1 - u)


def test_probability_of_cause_where_a_modality_may_be_absent_by_hand() -> None:
    contexts = independent(u=0.7, m1=0.9, m2=0.5)
    # m1 is the cause where it is present and preempts or is alone: 0.9 (0.7 + 0.3 · 0.5) of 1 - 0.1 · 0.5.
    assert probability_of_cause(preemption(), contexts, "m1", {"f": 1}) == pytest.approx(0.765 / 0.95)
    assert probability_of_cause(preemption(), contexts, "m1", {**BOTH, "e1": 1}) == 1  # encoders tell u


def test_impossible_evidence_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Parameter `evidence` should be possible. Found \{'m1': 1, 'f': 0\}"):
        probability_of_cause(preemption(), independent(u=0.5, m1=0.5, m2=0.5), "m1", {"m1": 1, "f": 0})


def test_two_of_several_are_the_two() -> None:
    for context in settings(("u", "m1", "m2")):
        ours = {**context, "u": 1 if context["u"] else 2}
        assert {**solve(several(2), ours), "u": context["u"]} == solve(preemption(), context)


def test_of_several_present_modalities_the_one_that_u_names_is_the_cause() -> None:
    weights = {1: 0.5, 2: 0.3, 3: 0.2}
    contexts = [({"u": u, "m1": 1, "m2": 1, "m3": 1}, weight) for u, weight in weights.items()]
    for i, weight in weights.items():
        assert probability_of_cause(several(3), contexts, f"m{i}") == pytest.approx(weight)  # Eq. 17
    for m in settings(("m1", "m2", "m3")):
        assert all(solve(several(3), {"u": u, **m})["f"] == max(m.values()) for u in weights)
    two_left = {"u": 1, "m1": 0, "m2": 1, "m3": 1}
    assert not any(is_cause(several(3), two_left, name) for name in ("m1", "m2", "m3"))


def test_it_prints_the_equations(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for expected in (
        "e1 = m1, e2 = m1', f = e1",
        "e1 = m2', e2 = m2, f = e2",
        "F_m1 = 1, F_m1' = 0: m1 is the actual cause",
        "given m1 = m2 = 1 (Eq. 16)  0.700  0.300",
        "P(cause) 0.500  0.300  0.200",
    ):
        assert expected in lines
