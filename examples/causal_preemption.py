"""The theory behind AGS, computed: modalities that preempt each other, and which of them is the actual cause.

    python examples/causal_preemption.py

A small Boolean causal model, with causal beams and actual causes found by enumeration from their definitions. From
[Actual Cause Guided Adaptive Gradient Scaling](https://doi.org/10.1145/3736415) (Chen et al., ACM TOMM 2025),
Definitions 3.2 to 3.5 and Eqs. 7 to 17, after Pearl's Causality, section 10.3. `docs/theory.md` says what follows from
what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations, product

State = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Equation:
    """How a variable follows from its parents (and from ``u``, which no equation determines)."""

    parents: tuple[str, ...]
    value: Callable[[State], int]


Model = Mapping[str, Equation]  # endogenous variables with parents, causes before effects


def ideal() -> Model:
    """Eq. 8: each encoder passes on its modality."""
    return {
        "e1": Equation(("m1",), lambda s: s["m1"]),
        "e2": Equation(("m2",), lambda s: s["m2"]),
        "f": Equation(("e1", "e2"), lambda s: s["e1"] | s["e2"]),
    }


def preemption(*, printed: bool = False) -> Model:
    """Eq. 11: m1 preempts m2 where u = 1, and m2 preempts m1 where u = 0.

    Args:
        printed: u and its negation as the paper prints them, which makes m2 preempt m1 where u = 1.
    """
    first, second = (0, 1) if printed else (1, 0)
    return {
        "e1": Equation(("m1", "m2"), lambda s: s["m1"] & ((s["u"] == first) | (1 - s["m2"]))),
        "e2": Equation(("m1", "m2"), lambda s: s["m2"] & ((s["u"] == second) | (1 - s["m1"]))),
        "f": Equation(("e1", "e2"), lambda s: s["e1"] | s["e2"]),
    }


def several(count: int) -> Model:
    """Our reading of Eq. 17, for which the paper gives no equations: the modality that u names preempts all others."""

    def encoder(i: int) -> Equation:
        names = tuple(f"m{j}" for j in range(1, count + 1))
        return Equation(names, lambda s: s[f"m{i}"] & ((s["u"] == i) | (1 - s[f"m{s['u']}"])))

    encoders = {f"e{i}": encoder(i) for i in range(1, count + 1)}
    return {**encoders, "f": Equation(tuple(encoders), lambda s: max(s[name] for name in encoders))}


def settings(names: Iterable[str]) -> Iterator[dict[str, int]]:
    """All ways to set Boolean variables."""
    names = tuple(names)
    return (dict(zip(names, values, strict=True)) for values in product((0, 1), repeat=len(names)))


def solve(model: Model, context: State, do: State | None = None) -> dict[str, int]:
    """The value of every variable, given u and the modalities, with some variables set from outside."""
    do = do or {}
    state = {**context, **do}
    for name, equation in model.items():
        state[name] = do[name] if name in do else int(equation.value(state))
    return state


def sustaining_sets(equation: Equation, actual: State) -> list[tuple[str, ...]]:
    """Definition 3.3, step 1 (Eq. 3): the sets of parents whose actual values fix the variable, come what may."""
    subsets = chain.from_iterable(combinations(equation.parents, size) for size in range(len(equation.parents) + 1))
    return [
        kept
        for kept in subsets
        if len({equation.value({**actual, **rest}) for rest in settings(set(equation.parents) - set(kept))}) == 1
    ]


def natural_sets(equation: Equation, actual: State) -> list[tuple[str, ...]]:
    """Those that also meet step 2 (Eq. 4) with X empty: other parents at their true values, the variable can change."""
    return [
        kept
        for kept in sustaining_sets(equation, actual)
        if len({equation.value({**actual, **setting}) for setting in settings(kept)}) == 2
    ]


def natural_beams(model: Model, context: State) -> list[Model]:
    """Definitions 3.3 and 3.4: every natural causal beam, those with the smallest sustaining sets first."""
    actual = solve(model, context)

    def project(equation: Equation, kept: tuple[str, ...]) -> Equation:  # Eq. 5
        return Equation(kept, lambda s: equation.value({**actual, **{name: s[name] for name in kept}}))

    choices = [natural_sets(equation, actual) for equation in model.values()]
    chosen = sorted(product(*choices), key=lambda sets: sum(map(len, sets)))
    return [
        {name: project(equation, kept) for (name, equation), kept in zip(model.items(), sets, strict=True)}
        for sets in chosen
    ]


def revealing_beams(model: Model, context: State, cause: str, effect: str = "f") -> list[Model]:
    """Definition 3.5 (Eq. 6): the natural beams in which the effect changes with the cause.

    ``cause`` with the value it has in the context is an actual cause of the effect's actual value if there is one.
    """
    actual = solve(model, context)
    other = {cause: 1 - actual[cause]}
    return [
        beam
        for beam in natural_beams(model, context)
        if solve(beam, context)[effect] == actual[effect] != solve(beam, context, other)[effect]
    ]


def is_cause(model: Model, context: State, cause: str) -> bool:
    """Whether the presence of a modality is an actual cause of f = 1 in this state."""
    actual = solve(model, context)
    return actual[cause] == actual["f"] == 1 and bool(revealing_beams(model, context, cause))


def independent(**probabilities: float) -> list[tuple[dict[str, int], float]]:
    """A distribution of contexts in which each variable is 1 by itself with the probability given."""
    found = []
    for context in settings(probabilities):
        weight = 1.0
        for name, value in context.items():
            weight *= probabilities[name] if value else 1 - probabilities[name]
        found.append((context, weight))
    return found


def probability_of_cause(
    model: Model, contexts: Iterable[tuple[State, float]], cause: str, evidence: State | None = None
) -> float:
    """Eq. 7: the probability that a modality is an actual cause of f = 1, given values that were observed.

    Raises:
        ValueError: the evidence has probability 0.
    """
    evidence = evidence or {}
    agreeing = [(c, p) for c, p in contexts if evidence.items() <= solve(model, c).items()]
    total = sum(p for _, p in agreeing)
    if total <= 0:
        raise ValueError(f"Parameter `evidence` should be possible. Found {dict(evidence)}, with probability 0.")
    return sum(p for c, p in agreeing if is_cause(model, c, cause)) / total


def formula(equation: Equation) -> str:
    """An equation as a sum of products: ``m1``, ``m1'``, ``m1 m2' ∨ m1 m2``."""
    terms = [
        " ".join(name if value else f"{name}'" for name, value in setting.items())
        for setting in settings(equation.parents)
        if equation.value(setting)
    ]
    return " ∨ ".join(terms)


def show_state(model: Model, u: int) -> None:
    """Print the smallest natural beam where both modalities are present, and Definition 3.5 applied to it."""
    context = {"u": u, "m1": 1, "m2": 1}
    beams = natural_beams(model, context)
    beam = beams[0]
    print(f"\nu = {u}, m1 = m2 = 1. Natural beams: {len(beams)}; with the smallest sustaining sets:")
    print("    " + ", ".join(f"{name} = {formula(equation)}" for name, equation in beam.items()))
    for name in ("m1", "m2"):
        with_it, without = (solve(beam, context, {name: value})["f"] for value in (1, 0))
        verdict = "the actual cause" if is_cause(model, context, name) else "no cause, in none of the beams"
        print(f"    F_{name} = {with_it}, F_{name}' = {without}: {name} is {verdict}")


def main() -> None:
    """Print the truth table, the beams, the causes in every state, and their probabilities."""
    model = preemption()
    print("Eq. 11, mended: e1 = m1 ∧ (u ∨ m2'), e2 = m2 ∧ (u' ∨ m1'), f = e1 ∨ e2\n")
    print("u m1 m2 | e1 e2 f | m1 ∨ m2 | actual causes of f = 1")
    for context in settings(("u", "m1", "m2")):
        u, m1, m2, e1, e2, f = solve(model, context).values()
        causes = ", ".join(name for name in ("m1", "m2") if is_cause(model, context, name)) or "-"
        print(f"{u} {m1:>2} {m2:>2} | {e1:>2} {e2:>2} {f} | {m1 | m2:^7} | {causes}")
    for u in (1, 0):
        show_state(model, u)

    print("\nProbability that m1, m2 is the actual cause, P(u = 1) = 0.7, P(m1) = 0.9, P(m2) = 0.5")
    contexts = independent(u=0.7, m1=0.9, m2=0.5)
    cases: dict[str, dict[str, int]] = {
        "m1 = m2 = 1 (Eq. 16)": {"m1": 1, "m2": 1},
        "m1 = m2 = 1, e1 = 1": {"m1": 1, "m2": 1, "e1": 1},
        "f = 1": {"f": 1},
    }
    for title, evidence in cases.items():
        found = [probability_of_cause(model, contexts, name, evidence) for name in ("m1", "m2")]
        print(f"    given {title:<22}{found[0]:.3f}  {found[1]:.3f}")

    weights = {1: 0.5, 2: 0.3, 3: 0.2}
    present = [({"u": u, "m1": 1, "m2": 1, "m3": 1}, weight) for u, weight in weights.items()]
    found = [probability_of_cause(several(3), present, f"m{i}") for i in weights]
    print("\nThree modalities, all present, u names the one that preempts (Eq. 17)")
    print("    P(u)     " + "  ".join(f"{weight:.3f}" for weight in weights.values()))
    print("    P(cause) " + "  ".join(f"{value:.3f}" for value in found))


if __name__ == "__main__":
    main()
