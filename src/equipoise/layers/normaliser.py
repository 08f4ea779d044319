"""Standardised inputs, with the statistics kept inside the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.layers.sequence import Sequence


class Normaliser(nn.Module):
    """Standardises each modality's features, ``(x - mean) / std``, on real frames only; padding becomes zero.

    The statistics are buffers, so they travel in the model's ``state_dict`` and a checkpoint reads raw features. It is
    the identity until :meth:`fit`.

    Args:
        dims: ``{modality: d}``
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.dims = dict(dims)
        for name, dim in self.dims.items():
            self.register_buffer(f"{name}_mean", torch.zeros(dim))
            self.register_buffer(f"{name}_std", torch.ones(dim))

    def fit(self, modality: str, mean: Tensor, std: Tensor) -> None:
        """Sets one modality's statistics, taken from training data. A ``std`` of 0 (a constant feature) counts as 1.

        Args:
            mean: ``[d]``
            std: ``[d]``

        Raises:
            ValueError: on an unknown modality, a wrong shape, a negative or a non-finite value
        """
        own_mean, own_std = self.statistics(modality)
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != own_mean.shape:
                raise ValueError(
                    f"Parameter `{name}` should have shape {tuple(own_mean.shape)} for {modality!r}. "
                    f"Found {tuple(value.shape)}."
                )
            if not bool(value.isfinite().all()):
                raise ValueError(f"Parameter `{name}` should be finite for {modality!r}. Found NaN or infinity.")
        if bool((std < 0).any()):
            raise ValueError(f"Parameter `std` should be non-negative for {modality!r}. Found {float(std.min())}.")
        own_mean.copy_(mean)
        own_std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def statistics(self, modality: str) -> tuple[Tensor, Tensor]:
        """One modality's ``(mean [d], std [d])``."""
        if modality not in self.dims:
            raise ValueError(f"Parameter `modality` should be one of {list(self.dims)}. Found {modality!r}.")
        return self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_std")

    def forward(self, modality: str, values: Tensor, mask: Tensor) -> Sequence:
        """``[B, T, d]`` values and their ``[B, T]`` mask to a standardised sequence with zeros as padding."""
        mean, std = self.statistics(modality)
        # The mean in padded frames makes them zeros; in place, since fresh memory costs a processor more than the sum.
        filled = torch.where(mask.unsqueeze(-1), values.to(mean.dtype), mean)
        return Sequence(filled.sub_(mean).div_(std), mask)

    def neutral(self, batch: Batch) -> Batch:
        """The batch with each modality's mean in every frame, which standardises to zeros.

        ``Batch.muted()`` holds zeros in the features' own units; after standardising these are ``-mean / std``, far
        from any real input when a feature's mean is large. ``normaliser.neutral(batch.muted())`` is zero where the
        encoders read it. Token ids stay as they are.
        """
        inputs = dict(batch.inputs)
        for name in self.dims.keys() & inputs.keys():
            mean, _ = self.statistics(name)
            inputs[name] = mean.to(inputs[name].dtype).expand_as(inputs[name]).clone()
        return replace(batch, inputs=inputs)
