"""Mono-modal concepts: what each modality of a model would be without competition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from torch import nn

from equipoise.data import Split
from equipoise.diagnostics.robustness import predict
from equipoise.models import LateFusion

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Train = Callable[[tuple[str, ...]], nn.Module]


def mono_modal_concepts(
    train: Train,
    split: Split,
    modalities: Sequence[str],
    *,
    probabilities: bool = False,
    progress: Progress | None = None,
) -> dict[str, Floats]:
    """What each modality says when it has learned without the others: ``{m: C^m, [N] or [N, C]}``.

    Of a classifier the concept is its logits, as in the paper, or its probabilities. A few directions can hold most of
    what logits vary in, and they need not be those that tell classes apart: then the strength by logits is near 0
    where that by probabilities is not.

    Args:
        train: from ``(m,)`` to a model trained on that modality by the joint model's own recipe; which network, says
            :func:`concept_network`. It exposes ``encode`` and ``fuse``.
        split: samples that neither it nor the joint model was trained on.
        modalities: whose concepts are wanted.
        probabilities: of classes, instead of logits.
        progress: told of concepts trained, and of how many there are.
    """
    concepts = {}
    for done, name in enumerate(modalities, start=1):
        outputs = predict(train((name,)), split, (name,)).double()
        outputs = outputs.softmax(dim=1) if probabilities and split.manifest.task == "classification" else outputs
        concepts[name] = cast(Floats, outputs.numpy())
        if progress is not None:
            progress(done, len(modalities))
    return concepts


def concept_network(model: nn.Module) -> Literal["alone", "zeroed"]:
    """What a mono-modal concept of this model is trained with (AGM, section 3.2.1).

    - ``"alone"``: late fusion, a sum of branches, the modality's own branch: the model built for that modality only.
    - ``"zeroed"``: any other fusion, the same network on batches that hold that modality only. Our models read zeros
      where a modality is absent; ``fit(model, modalities=(m,), ...)`` trains them so.
    """
    return "alone" if isinstance(model, LateFusion) and model.mlp is None else "zeroed"
