"""What a step holds of each modality that a method balances."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from equipoise.core import Balancer, Step


def features_of(balancer: Balancer, step: Step) -> list[Tensor]:
    """``step.features`` ``[B, d_m]`` of every modality that ``balancer`` balances, in order.

    Raises:
        ValueError: one of them is not there, or no matrix.
    """
    features = dict(step.features or {})
    _check_names(balancer, features, "a representation of each modality in `Step.features`")
    found = [features[name] for name in balancer.modalities]
    if any(x.dim() != 2 for x in found):
        shapes = {name: tuple(features[name].shape) for name in balancer.modalities}
        raise ValueError(
            f"{type(balancer).__name__} needs `Step.features` of shape [B, d]. Found {shapes}. Average over time first."
        )
    return found


def outputs_of(balancer: Balancer, step: Step) -> dict[str, Tensor]:
    """``step.unimodal``, of which every modality that ``balancer`` balances has an output.

    Raises:
        ValueError: one of them is not there.
    """
    unimodal = dict(step.unimodal or {})
    _check_names(balancer, unimodal, "an output of each modality in `Step.unimodal`")
    return unimodal


def _check_names(balancer: Balancer, found: Mapping[str, Tensor], what: str) -> None:
    missing = [name for name in balancer.modalities if name not in found]
    if missing:
        raise ValueError(f"{type(balancer).__name__} needs {what}. Found {sorted(found)}, missing {missing}.")
