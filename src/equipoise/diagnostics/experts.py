"""Which experts of a mixture work, how much, and on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from equipoise.data import Split
from equipoise.diagnostics.subject import _evaluating
from equipoise.layers import SparseMoE, VectorMoE

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

QUARTERS = 4


@dataclass(frozen=True)
class ExpertLoad:
    """What the N experts of one mixture do in an evaluated model.

    Attributes:
        name: of the mixture in the model, such as ``branches.ta.layers.0.mix`` or ``encoders.text.mixer``.
        kind: ``"tokens"`` (:class:`equipoise.layers.SparseMoE`) or ``"vectors"``, one a sample
            (:class:`equipoise.layers.VectorMoE`).
        load: ``[N]``, each expert's share of all visits; a token pays ``top_k`` of them. Sums to 1.
        importance: ``[N]``, its share of the gate's weight. Sums to 1.
        imbalance: coefficient of variation of ``load``: 0 where all work alike, $\\sqrt{N - 1}$ where one does it all.
        groups: ``{group: [N]}``, the importance among the samples of each group.
        parts: ``[P, N]``. For tokens, each row the importance in one quarter of the sequences; rows sum to 1. For
            vectors, which are P local representations side by side, each column where an expert's input comes from: a
            part's share of the squares that the parts add to the expert's first layer, each by itself, over the
            samples that the expert gets; columns sum to 1. NaN where nothing came.
        visits: tokens or vectors that were routed.
    """

    name: str
    kind: str
    load: Floats
    importance: Floats
    imbalance: float
    groups: dict[str, Floats]
    parts: Floats
    visits: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN is None."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.kind, "visits": self.visits}
        plain |= {"imbalance": self.imbalance, "load": self.load.tolist(), "importance": self.importance.tolist()}
        plain["groups"] = {group: _plain(row) for group, row in self.groups.items()}
        plain["parts"] = [_plain(row) for row in self.parts]
        return plain


class _Routes:
    """What went where in one mixture, gathered batch by batch."""

    def __init__(self, experts: int) -> None:
        self.load = torch.zeros(experts, dtype=torch.float64)
        self.by_sample: list[Tensor] = []
        self.parts: Tensor | None = None
        self.visits = 0

    def add(self, chosen: Tensor, weights: Tensor, parts: Tensor) -> None:
        """``[B, N]`` counts, ``[B, N]`` gate weights and ``[P, N]`` of one batch."""
        self.load += chosen.sum(dim=0).double().cpu()
        self.by_sample.append(weights.double().cpu())
        self.parts = parts.double().cpu() + (0 if self.parts is None else self.parts)


def expert_loads(
    model: nn.Module,
    split: Split,
    modalities: Sequence[str] | None = None,
    *,
    groups: Sequence[str] | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> list[ExpertLoad]:
    """One entry for each mixture of experts in the model, in its order; none for a model without.

    In evaluation the gate draws no noise, so this is what the trained model does, not what it explored. Padded tokens
    and vectors that are zero throughout (a modality that a sample lacks) are not counted.

    Args:
        model: exposes ``encode`` and ``fuse``. Put in evaluation mode, and back.
        split: the samples.
        modalities: those to use; None for all of the split.
        groups: ``[N]``, a name for each sample, such as its class.
        batch_size: samples at once.
        progress: told of batches done, and of how many there are.

    Raises:
        ValueError: an empty split, or groups of another length.
    """
    if not len(split) or (groups is not None and len(groups) != len(split)):
        found = f"{len(split)} samples and {'no' if groups is None else len(groups)} groups"
        raise ValueError(f"Parameters `split` and `groups` should hold as many, at least one. Found {found}.")
    names = list(split.modalities if modalities is None else modalities)
    mixtures = {name: part for name, part in model.named_modules() if isinstance(part, SparseMoE | VectorMoE)}
    if not mixtures:
        return []
    routes = {name: _Routes(len(part.experts)) for name, part in mixtures.items()}
    hooks = [part.register_forward_hook(_watcher(routes[name])) for name, part in mixtures.items()]
    device, net = next(model.parameters()).device, cast(Any, model)
    try:
        with torch.no_grad(), _evaluating(model):
            for start in range(0, len(split), batch_size):
                batch = split.batch(np.arange(start, min(start + batch_size, len(split))), names).to(device)
                net.fuse(net.encode(batch))
                if progress is not None:
                    progress(start // batch_size + 1, -(-len(split) // batch_size))
    finally:
        for hook in hooks:
            hook.remove()
    return [_summary(name, mixtures[name], found, groups) for name, found in routes.items() if found.by_sample]


def _watcher(routes: _Routes) -> Callable[..., None]:
    def watch(module: nn.Module, given: tuple[Tensor, ...], out: Any) -> None:
        if isinstance(module, VectorMoE):
            x = given[0]
            real = (x != 0).any(dim=1, keepdim=True)
            gates = out.gates * real
            routes.visits += int(real.sum())
            routes.add(gates > 0, gates, _drawn_from(module, x, gates > 0))
            return
        assert isinstance(module, SparseMoE)
        x, mask = given
        experts = len(module.experts)
        chosen, weights = module.route(x.masked_fill(~mask.unsqueeze(-1), 0).flatten(0, 1))
        spread = weights.new_zeros(len(weights), experts).scatter_add(1, chosen, weights)
        spread = spread.view(*mask.shape, experts) * mask.unsqueeze(-1)
        place = (mask.cumsum(dim=1) - 1) * QUARTERS // mask.sum(dim=1, keepdim=True).clamp(min=1)
        parts = torch.stack([spread[mask & (place == quarter)].sum(dim=0) for quarter in range(QUARTERS)])
        routes.visits += int(mask.sum())
        routes.add((spread > 0).sum(dim=1), spread.sum(dim=1), parts)

    return watch


def _drawn_from(module: VectorMoE, x: Tensor, chosen: Tensor) -> Tensor:
    """``[P, N]``: the square of what each part brings to each expert's first layer, over the samples it gets."""
    layers = [cast(nn.Linear, cast(nn.Sequential, expert)[0]) for expert in module.experts]
    out = cast(nn.Linear, cast(nn.Sequential, module.experts[0])[-1]).out_features
    pieces = x.shape[1] // out if x.shape[1] % out == 0 else 1
    split = x.view(len(x), pieces, -1)
    brought = [
        torch.einsum("bpd,hpd->bph", split, layer.weight.view(len(layer.weight), pieces, -1)).square().sum(dim=-1)
        for layer in layers
    ]
    return torch.stack([(part * chosen[:, i : i + 1]).sum(dim=0) for i, part in enumerate(brought)], dim=1)


def _summary(name: str, module: SparseMoE | VectorMoE, found: _Routes, groups: Sequence[str] | None) -> ExpertLoad:
    weights = torch.cat(found.by_sample).numpy()
    load = _shares(found.load.numpy())
    assert found.parts is not None
    parts, tokens = found.parts.numpy(), isinstance(module, SparseMoE)
    rows = np.asarray([] if groups is None else groups)
    return ExpertLoad(
        name,
        "tokens" if tokens else "vectors",
        load,
        _shares(weights.sum(axis=0)),
        float(load.std() / load.mean()),
        {str(group): _shares(weights[rows == group].sum(axis=0)) for group in np.unique(rows)},
        np.stack([_shares(row) for row in (parts if tokens else parts.T)], axis=0 if tokens else 1),
        found.visits,
    )


def _shares(values: Floats) -> Floats:
    total = values.sum()
    return values / total if total > 0 else np.full_like(values, np.nan)


def _plain(row: Floats) -> list[float | None]:
    return [None if value != value else float(value) for value in row]
