"""Self-MM's unimodal labels: made while training, kept for each training sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.balancers._ranks import rows_of_all_ranks, several_ranks

_EPSILON = 1e-8


def relative_distance(features: Tensor, centres: Tensor) -> Tensor:
    r"""How much nearer features are to the positive centre, ``[B, d], [2, R, d] → [B, R]``.

    $$\alpha = \frac{\lVert F - C^n \rVert_2 - \lVert F - C^p \rVert_2}{\lVert F - C^p \rVert_2 + \epsilon}$$

    >>> relative_distance(torch.tensor([[1.0]]), torch.tensor([[[3.0]], [[-3.0]]]))
    tensor([[1.]])
    """
    positive, negative = (torch.linalg.vector_norm(features.unsqueeze(1) - each, dim=-1) for each in centres)
    found: Tensor = (negative - positive) / (positive + _EPSILON)
    return found


def generated_labels(target: Tensor, own: Tensor, joint: Tensor, bound: Tensor | float) -> Tensor:
    r"""A modality's labels from the target and both relative distances, each ``[B, R]``; NaN where undefined.

    $$y_s = \tfrac{1}{2} \frac{\alpha_s}{\alpha_m} y_m + \tfrac{1}{2} (y_m + \alpha_s - \alpha_m)$$

    and then cut to ``[-bound, bound]``.

    >>> generated_labels(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([0.5]), 3.0)
    tensor([1.7500])
    """
    made = 0.5 * own / (joint + _EPSILON) * target + 0.5 * (target + own - joint)
    limit = torch.as_tensor(bound, dtype=made.dtype, device=made.device)
    return torch.minimum(torch.maximum(made, -limit), limit)


def centres(features: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Means of the features with positive and with negative labels, ``[N, d], [N, R], [N] → [2, R, d]``.

    A label of zero counts to neither. NaN where there is no such sample.
    """
    sides = torch.stack([labels > 0, labels < 0]) & known.unsqueeze(-1)
    weights = sides.to(features.dtype).transpose(1, 2)
    with torch.autocast(features.device.type, enabled=False):  # it would round a sum over all samples
        return weights @ features / weights.sum(dim=2, keepdim=True)


class UnimodalLabels(nn.Module):
    """Labels, last features and numbers of views of every training sample, by its row in the dataset.

    All of it are buffers, which grow with the highest row seen: a checkpoint holds them, and loading one takes their
    size from it. Every rank of a distributed run has to call `update` equally often; it then holds what all have seen.

    Args:
        widths: ``{m: d_m}``, of the features that labels are made from.
        joint: width of the fused features.
        outputs: R, values of a target.
        bound: labels lie in ``[-bound, bound]``; None for the largest absolute target seen, for each value of its own.
        from_view: a sample's view of a modality at which its label first moves.
    """

    targets: Tensor
    joint: Tensor
    views: Tensor

    def __init__(
        self, widths: Mapping[str, int], *, joint: int, outputs: int, bound: float | None, from_view: int
    ) -> None:
        super().__init__()
        self.names = tuple(widths)
        self.bound = bound
        self.from_view = from_view
        self.register_buffer("targets", torch.zeros(0, outputs))
        self.register_buffer("joint", torch.zeros(0, joint))
        self.register_buffer("views", torch.zeros(0, dtype=torch.long))
        for name, width in widths.items():
            self.register_buffer(f"{name}_labels", torch.zeros(0, outputs))
            self.register_buffer(f"{name}_features", torch.zeros(0, width))
            self.register_buffer(f"{name}_views", torch.zeros(0, dtype=torch.long))

    @torch.no_grad()
    def read(self, index: Tensor, target: Tensor) -> dict[str, Tensor]:
        """``{m: [B, R]}``, the labels as they stand; the target where a sample was never seen."""
        if not len(self.views):
            return dict.fromkeys(self.names, target)
        row = index.clamp(max=len(self.views) - 1)
        seen = ((index == row) & (self.views[row] > 0)).unsqueeze(-1)
        return {name: torch.where(seen, self.get_buffer(f"{name}_labels")[row], target) for name in self.names}

    @torch.no_grad()
    def update(
        self,
        index: Tensor,
        target: Tensor,
        joint: Tensor,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> None:
        """Move the labels of these samples, then keep their features.

        Args:
            index: ``[B]``, rows in the dataset.
            target: ``[B, R]``.
            joint: ``[B, d]``, fused features.
            features: ``{m: [B, d_m]}``.
            present: ``{m: [B]}`` bool; where False the label of m stays, and so do its features.
        """
        index, values = _of_all_ranks(index, [target, joint, *features.values(), *present.values()])
        if not len(index):
            return
        self._grow(int(index.max()) + 1)
        target, joint = (value.to(self.joint.dtype) for value in values[:2])
        own = dict(zip(self.names, values[2 : 2 + len(self.names)], strict=True))
        there = dict(zip(self.names, values[2 + len(self.names) :], strict=True))
        self.targets[index] = target
        bound = self.targets.abs().amax(dim=0) if self.bound is None else self.bound
        whole = relative_distance(joint, centres(self.joint, self.targets, self.views > 0))
        for name in self.names:
            labels, kept, views = (self.get_buffer(f"{name}_{what}") for what in ("labels", "features", "views"))
            x, real = own[name].to(kept.dtype), there[name].bool()
            before = torch.where((self.views[index] > 0).unsqueeze(-1), labels[index], target)
            view = views[index] + 1
            made = generated_labels(target, relative_distance(x, centres(kept, labels, views > 0)), whole, bound)
            moves = (real & (view >= self.from_view)).unsqueeze(-1) & ~made.isnan()
            share = 2 / (view + 1).to(made.dtype).unsqueeze(-1)
            labels[index] = torch.where(moves, (1 - share) * before + share * made, before)
            kept[index] = torch.where(real.unsqueeze(-1), x, kept[index])
            views[index] += real
        self.joint[index] = joint
        self.views[index] += 1

    def forget(self) -> None:
        """Drop everything kept, before training on other data."""
        for name, value in self.named_buffers():
            setattr(self, name, value[:0].clone())

    def _grow(self, rows: int) -> None:
        for name, value in self.named_buffers():
            if len(value) < rows:
                setattr(self, name, torch.cat([value, value.new_zeros(rows - len(value), *value.shape[1:])]))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name, value in self.named_buffers():
            if (saved := state_dict.get(prefix + name)) is not None and saved.shape[1:] == value.shape[1:]:
                setattr(self, name, value.new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _of_all_ranks(index: Tensor, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The samples of every rank, each once, in the order of their rows."""
    if several_ranks():
        widths = [1 if value.dim() == 1 else value.shape[1] for value in values]
        # In float64 rows, bools and float32 all come back as they were: one exchange for everything.
        flat = torch.cat([x.double().reshape(len(index), -1) for x in [index, *values]], dim=1)
        flat = rows_of_all_ranks(flat)
        index = flat[:, 0].long()
        parts = flat[:, 1:].split_with_sizes(widths, dim=1)
        values = [part.squeeze(1) if value.dim() == 1 else part for part, value in zip(parts, values, strict=True)]
    order = index.argsort(stable=True)
    ordered = index[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    order = order[first]
    return index[order], [value[order] for value in values]
