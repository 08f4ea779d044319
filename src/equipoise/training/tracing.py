"""Gradient norms of every stage a model names, before and after the balancer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from equipoise.core import Balancer, Chain, FactorScaling, Modalities
from equipoise.functional import gradient_norms

Traced = dict[str, Tensor]


def stages_of(model: Any) -> dict[str, Modalities]:
    """What the model balances, by stage: ``"encoders"`` first, and those of its ``stages`` that these modalities have.

    Args:
        model: exposes ``modalities(stage)`` and, where there are more than ``"encoders"``, their names as ``stages``.
    """
    found = {"encoders": model.modalities("encoders")}
    for stage in getattr(model, "stages", ()):
        if stage not in found:
            try:
                found[stage] = model.modalities(stage)
            except ValueError:  # too few modalities for it
                continue
    return found


@dataclass(frozen=True)
class Tracer:
    """Reads gradients every few steps, and changes nothing.

    Attributes:
        stages: as `stages_of` gives them.
        balancer: None for the plain model, whose gradients nobody changes.
        every: optimizer steps of an epoch from one reading to the next; 0 for none.
    """

    stages: dict[str, Modalities]
    balancer: Balancer | None
    every: int

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Leading words of the columns, and the names that follow each."""
        if not self.every:
            return {}
        before = {_before(stage): groups.names for stage, groups in self.stages.items()}
        after = {} if self.balancer is None else {_after(stage): self.stages[stage].names for stage in self.stages}
        return before | after

    def due(self, step: int) -> bool:
        """Whether the step, counted from 0 at the beginning of its epoch, is read."""
        return bool(self.every) and step % self.every == 0

    def before(self) -> Traced:
        """Norms ``[K]`` of each stage: call it when the balancer has not touched the gradients."""
        return {_before(stage): gradient_norms(groups) for stage, groups in self.stages.items() if _learns(groups)}

    def after(self) -> Traced:
        """Norms ``[K]`` of each stage as the balancer leaves them, before clipping.

        A factor that a balancer applies to the optimizer's step (``apply_to="update"``) counts as one on the gradient.
        """
        if self.balancer is None:
            return {}
        found = {_after(stage): gradient_norms(groups) for stage, groups in self.stages.items() if _learns(groups)}
        for part in parts_of(self.balancer):
            scaling, factors = getattr(part, "scaling", None), part.trace.get("factors")
            if isinstance(scaling, FactorScaling) and scaling.apply_to == "update" and factors is not None:
                for stage, groups in self.stages.items():
                    if _after(stage) in found and _same(groups, scaling.modalities):
                        found[_after(stage)] = found[_after(stage)] * factors
        return found


def parts_of(balancer: Balancer | None) -> list[Balancer]:
    """The balancers of a chain; one alone is a list of itself."""
    if balancer is None:
        return []
    return list(balancer) if isinstance(balancer, Chain) else [balancer]


def _before(stage: str) -> str:
    return "norm" if stage == "encoders" else f"stage_norm/{stage}"


def _after(stage: str) -> str:
    return "norm_after" if stage == "encoders" else f"stage_norm_after/{stage}"


def _learns(groups: Modalities) -> bool:
    return any(groups.gradients(name) for name in groups)


def _same(one: Modalities, other: Modalities) -> bool:
    return one.names == other.names and list(_ids(one)) == list(_ids(other))


def _ids(groups: Modalities) -> Iterator[int]:
    return (id(parameter) for name in groups for parameter in groups.parameters(name))
