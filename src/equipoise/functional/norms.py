"""Gradient norms of modalities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class HasGradients(Protocol):
    """Names and their gradients, such as `equipoise.Modalities`."""

    def __iter__(self) -> Iterator[str]:
        """The names."""

    def gradients(self, name: str) -> list[Tensor]:
        """The gradients of one name."""


def gradient_norms(modalities: HasGradients) -> Tensor:
    r"""Root mean square norm of each modality's gradient tensors, ``[K]`` in ``float32`` or wider, on their device.

    $$grad_m = \sqrt{\tfrac{1}{n} \sum_{i=1}^{n} \lVert g_i^m \rVert_2^2}$$

    with $n$ the number of parameter *tensors* of modality $m$ that have a gradient (AGS-SMoE, Eq. 20). A
    modality without gradients has norm 0. Nothing is copied to the host.

    Raises:
        RuntimeError: no modality has a gradient, or one is sharded over ranks (FSDP): a local norm would be wrong.

    Example:
        >>> from torch import nn
        >>> from equipoise import Modalities
        >>> text, audio = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
        >>> text.grad, audio.grad = torch.tensor([3.0, 4.0]), torch.tensor([2.0])
        >>> gradient_norms(Modalities(text=[text], audio=[audio]))
        tensor([5., 2.])
    """
    groups = {name: modalities.gradients(name) for name in modalities}
    first = next((gradients[0] for gradients in groups.values() if gradients), None)
    if first is None:
        raise RuntimeError(
            f"No gradient found for any of {list(groups)}. Call this after `loss.backward()` and before "
            "`optimizer.zero_grad()`."
        )
    dtype = torch.float32
    for kind in {gradient.dtype for gradients in groups.values() for gradient in gradients}:
        dtype = torch.promote_types(dtype, kind)
    return torch.stack([_rms_norm(gradients, dtype, first.device) for gradients in groups.values()])


def _rms_norm(gradients: list[Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
    if not gradients:
        return torch.zeros((), dtype=dtype, device=device)
    if any(hasattr(gradient, "device_mesh") for gradient in gradients):
        raise RuntimeError(
            "Found gradients sharded over ranks (FSDP). Their norms are not supported: use DDP, or gather them first."
        )
    norms: list[Tensor] = list(torch._foreach_norm(gradients, 2, dtype))
    whole: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]))
    return torch.div(whole, len(gradients) ** 0.5)
