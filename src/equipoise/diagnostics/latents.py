"""A model's last latent: what its last linear layer reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from equipoise.data import Split
from equipoise.diagnostics.subject import _evaluating

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

FUSED = "fused"


def last_latent(run: Callable[[], Tensor], model: nn.Module, *, at: nn.Module | None = None) -> Tensor | None:
    """The latent z before the last classifier layer (AGM, section 3.2.2), whatever the model.

    The rule: z is the input of every ``nn.Linear`` from whose output the logits follow without another ``nn.Linear`` in
    between. Mostly that is one layer. A classifier on a concatenation that is stored as a part for each modality gives
    the concatenation back, and heads of single modalities, whose outputs the logits don't depend on, give nothing. The
    path is followed in the graph that autograd records; a classifier that reads frames has its input averaged over the
    frames up to the last that is not zero throughout.

    Args:
        run: gives the logits. It must not turn gradients off, and the model should be in evaluation mode.
        model: where the linear layers are.
        at: the module whose first input is z, instead of the rule.

    Returns:
        ``[B, d]``, or None where no linear layer was met.

    Raises:
        ValueError: logits without a graph, or a module ``at`` that ``run`` did not call.
    """
    met: dict[Any, Tensor] = {}
    inputs: list[Tensor] = []

    def mark(_: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        # A node of its own for every call, also where all parameters are frozen.
        marked = (out if out.requires_grad else out.detach().requires_grad_()).clone()
        met[marked.grad_fn] = given[0]
        return marked

    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_hook(mark) for layer in layers] if at is None else []
    if at is not None:
        hooks.append(at.register_forward_pre_hook(lambda _, given: inputs.append(given[0])))
    try:
        with torch.enable_grad():
            logits = run()
    finally:
        for hook in hooks:
            hook.remove()
    if at is not None:
        if not inputs:
            raise ValueError(f"Parameter `at` should be a module that the model calls. Found {type(at).__name__}.")
        return _pooled(inputs[-1])
    if met and logits.grad_fn is None:
        raise ValueError(
            "Parameter `run` should give logits with a graph. Found none: leave out `no_grad`, or use `at`."
        )
    found = _nearest(logits.grad_fn, met)
    return torch.cat([_pooled(x) for x in found], dim=1) if found else None


def representations(
    model: nn.Module,
    split: Split,
    modalities: Sequence[str] | None = None,
    *,
    pairs: bool = True,
    at: nn.Module | None = None,
    stages: Mapping[str, nn.Module] | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> dict[str, Floats]:
    """What a model makes of each modality, of each pair and of all, ``{name: [N, d]}``.

    - A modality's name: ``Output.features``, what its encoder says.
    - ``text+audio``: the last latent from that pair alone, the others absent; where there are three modalities or more.
    - ``fused``: the last latent z (:func:`last_latent`) from all. Where the fusion has no linear layer (LMF), the
      concatenation of the features.

    Args:
        model: exposes ``encode`` and ``fuse``. Put in evaluation mode, and back.
        split: the samples, in whose order the rows are.
        modalities: those to use; None for all of the split that the model reads.
        pairs: whether pairs are wanted.
        at: the module whose input is the last latent, instead of the rule.
        stages: further modules by name, such as AGS-SMoE's ``model.branches``, whose outputs ``[B, d]`` are wanted.
        batch_size: samples at once.
        progress: told of batches done, and of how many there are.

    Raises:
        ValueError: an empty split, or what `last_latent` refuses.
    """
    if not len(split):
        raise ValueError("Parameter `split` should hold samples. Found none.")
    names = list(split.modalities if modalities is None else modalities)
    device = next(model.parameters()).device
    order = np.argsort(np.sum([split.lengths(name) for name in names], axis=0), kind="stable")
    found: dict[str, list[Tensor]] = {}
    with _evaluating(model):
        for start in range(0, len(order), batch_size):
            batch = split.batch(order[start : start + batch_size], names).to(device)
            for name, values in _of_batch(cast(Any, model), batch, pairs, at, stages or {}).items():
                found.setdefault(name, []).append(values.detach().double().cpu())
            if progress is not None:
                progress(start // batch_size + 1, -(-len(order) // batch_size))
    back = torch.from_numpy(np.argsort(order))
    return {name: cast(Floats, torch.cat(parts)[back].numpy()) for name, parts in found.items()}


def _of_batch(
    net: Any, batch: Any, pairs: bool, at: nn.Module | None, stages: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    with torch.no_grad():
        encoded = net.encode(batch)
    said: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: said.__setitem__(name, out))
        for name, module in stages.items()
    ]
    outputs: list[Any] = []

    def run(kept: Sequence[str]) -> Tensor:
        outputs.append(net.fuse({name: encoded[name] for name in kept}))
        logits: Tensor = outputs[-1].logits
        return logits

    def latent(kept: Sequence[str]) -> Tensor:
        z = last_latent(lambda: run(kept), net, at=at)
        return torch.cat(list(outputs[-1].features.values()), dim=1) if z is None else z

    names = list(encoded)
    try:
        fused = latent(names)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [name for name in names if name not in outputs[-1].features]:
        raise ValueError(
            f"{type(net).__name__} gives no `features` of {', '.join(missing)}, which this reads: one vector `[B, d]` "
            "of each modality in what it returns."
        )
    found = {name: outputs[-1].features[name] for name in names}
    if pairs and len(names) > 2:
        for i, first in enumerate(names):
            found |= {f"{first}+{second}": latent([first, second]) for second in names[i + 1 :]}
    return {**found, **said, FUSED: fused}


def _nearest(start: Any, met: Mapping[Any, Tensor]) -> list[Tensor]:
    """Inputs of the marked nodes that can be reached without passing another one, in the order of their calls."""
    reached, seen, todo = set(), set(), [start]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in met:
            reached.add(node)
        else:
            todo += [following for following, _ in node.next_functions]
    return [x for node, x in met.items() if node in reached]


def _pooled(x: Tensor) -> Tensor:
    """``[B, d]`` as it is; the mean of ``[B, ..., d]`` over the frames up to the last that is not zero throughout."""
    if x.ndim == 2:
        return x
    frames = x.flatten(1, -2)
    number = torch.arange(1, frames.shape[1] + 1, device=x.device)
    last = ((frames != 0).any(dim=-1) * number).amax(dim=1, keepdim=True)
    return frames.sum(dim=1) / last.clamp(min=1)
