"""What the tables of a run say of its training: who was dominant, in conflict, held back, pulled aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.diagnostics.dominance import TOLERANCE, Shares, shares_of
from equipoise.diagnostics.estimates import plain

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Sequence[float]]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Stage:
    """One stage of the model.

    Attributes:
        groups: its K names.
        steps: ``[S]`` numbers of the steps that were read.
        norms: ``[S, K]`` before the balancer.
        after: ``[S, K]`` as it left them; NaN where that was not read.
        whole: over all steps.
        epochs: over the steps of each epoch, in order.
    """

    groups: tuple[str, ...]
    steps: Floats
    norms: Floats
    after: Floats
    whole: Shares
    epochs: list[Shares]


@dataclass(frozen=True)
class Factors:
    """What a balancer multiplied the gradients, or the loss, of one group by.

    Attributes:
        steps: in which it acted at all.
        changed: share of these in which the factor is not 1.
        mean: of the factor.
        quantiles: at 5, 25, 50, 75 and 95 %.
        first: mean over the first epoch in which it acted.
        last: mean over the last.
    """

    steps: int
    changed: float
    mean: float
    quantiles: tuple[float, ...]
    first: float
    last: float


@dataclass(frozen=True)
class Trace:
    """A training, as its tables tell it.

    Attributes:
        epochs: ``[E]`` their numbers.
        stages: ``"encoders"`` first.
        factors: by group; of a chain's later balancer of the same groups as ``"1/<group>"``.
        directions: ``{m: [E]}`` cosines between a modality's own and the joint gradient; NaN where none was computed.
        fused: ``{metric: [E]}`` on validation data.
        own: ``{metric: {m: [E]}}``, of each modality's own predictions.
        tolerance: $\\tau$ of the conflicts.
    """

    epochs: Floats
    stages: dict[str, Stage]
    factors: dict[str, Factors]
    directions: dict[str, Floats]
    fused: dict[str, Floats]
    own: dict[str, dict[str, Floats]]
    tolerance: float

    def first_and_last(self) -> dict[str, dict[str, tuple[float, float]]]:
        """``{quantity: {m: (first epoch, last epoch)}}`` of norms, ratios, cosines and own metrics.

        Where an epoch has none on record, the first and the last that have.
        """
        shares = self.stages["encoders"].epochs
        found = {
            "norm": {name: _ends(np.array([each.norm[name] for each in shares])) for name in shares[0].norm},
            "ratio": {name: _ends(np.array([each.ratio[name] for each in shares])) for name in shares[0].ratio},
            "direction": {name: _ends(values) for name, values in self.directions.items()},
        }
        return found | {metric: {m: _ends(values) for m, values in own.items()} for metric, own in self.own.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers: what is by epoch, not what is by step."""
        stages = {
            name: {"groups": list(stage.groups), "whole": plain(stage.whole), "epochs": plain(stage.epochs)}
            for name, stage in self.stages.items()
        }
        kept = ("epochs", "factors", "directions", "fused", "own", "tolerance")
        found = {name: plain(getattr(self, name)) for name in kept}
        return found | {"stages": stages, "first_and_last": plain(self.first_and_last())}


def read_trace(epochs: Columns, steps: Columns, *, tolerance: float = TOLERANCE) -> Trace:
    """What the columns of a run's ``metrics.csv`` and ``steps.csv`` say; an empty field is NaN.

    Tables that were written without norms after the balancer, later stages or directions give what they have.

    Args:
        epochs: ``{column: [E]}``.
        steps: ``{column: [S]}``.
        tolerance: by which share a norm may exceed the others' mean before it is a conflict.

    Raises:
        ValueError: no step, no norms (a run of one modality, or with ``trace_every`` 0), or a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"Parameter `tolerance` should be non-negative. Found `tolerance = {tolerance}`.")
    by_step = {name: np.asarray(values, dtype=np.float64) for name, values in steps.items()}
    by_epoch = {name: np.asarray(values, dtype=np.float64) for name, values in epochs.items()}
    names = _following(by_step, "norm/")
    if not names or not len(by_step["step"]):
        raise ValueError(
            "Parameter `steps` should hold gradient norms (`norm/<modality>`) of one step or more. "
            "Found none: a run of one modality has nothing to balance, one with `train.trace_every: 0` records none."
        )
    stages = {"encoders": _stage(by_step, "norm/", "norm_after/", names, tolerance)}
    later = [name.split("/")[0] for name in _following(by_step, "stage_norm/")]
    for stage in dict.fromkeys(later):
        lead = f"stage_norm/{stage}/"
        stages[stage] = _stage(by_step, lead, f"stage_norm_after/{stage}/", _following(by_step, lead), tolerance)
    valid = _following(by_epoch, "valid/")
    own: dict[str, dict[str, Floats]] = {}
    for column in valid:
        name, _, metric = column.partition("/")
        if metric and name in names:
            own.setdefault(metric, {})[name] = by_epoch[f"valid/{column}"]
    return Trace(
        epochs=by_epoch["epoch"],
        stages=stages,
        factors=_factors(by_step),
        directions={name: by_epoch[f"direction/{name}"] for name in _following(by_epoch, "direction/")},
        fused={metric: by_epoch[f"valid/{metric}"] for metric in valid if "/" not in metric},
        own=own,
        tolerance=tolerance,
    )


def _stage(columns: Mapping[str, Floats], lead: str, after: str, names: Sequence[str], tolerance: float) -> Stage:
    norms = np.stack([columns[lead + name] for name in names], axis=1)
    missing = np.full(len(norms), np.nan)
    left = np.stack([columns.get(after + name, missing) for name in names], axis=1)
    read = ~np.isnan(norms).all(axis=1)
    norms, left, epoch = norms[read], left[read], columns["epoch"][read]
    each = [
        shares_of(norms[epoch == number], left[epoch == number], names, tolerance=tolerance)
        for number in np.unique(columns["epoch"])
    ]
    whole = shares_of(norms, left, names, tolerance=tolerance)
    return Stage(tuple(names), columns["step"][read], norms, left, whole, each)


def _factors(columns: Mapping[str, Floats]) -> dict[str, Factors]:
    found = {}
    for column, values in columns.items():
        lead, slash, name = column.partition("factor/")
        acted = np.isfinite(values)
        if not slash or not (lead == "" or lead.rstrip("/").isdigit()) or not acted.any():
            continue
        kept, epoch = values[acted], columns["epoch"][acted]
        found[lead + name] = Factors(
            steps=len(kept),
            changed=float((kept != 1).mean()),
            mean=float(kept.mean()),
            quantiles=tuple(float(q) for q in np.quantile(kept, QUANTILES)),
            first=float(kept[epoch == epoch[0]].mean()),
            last=float(kept[epoch == epoch[-1]].mean()),
        )
    return found


def _following(columns: Mapping[str, Any], lead: str) -> list[str]:
    return [name.removeprefix(lead) for name in columns if name.startswith(lead)]


def _ends(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known[0]), float(known[-1])) if len(known) else (float("nan"), float("nan"))
