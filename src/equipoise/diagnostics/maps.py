"""Maps of what a model makes of samples: t-SNE of every representation, with what a line reads off it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from equipoise.data import Split
from equipoise.diagnostics.latents import representations
from equipoise.diagnostics.probes import enough_to_probe, linear_probes, tsne
from equipoise.diagnostics.scores import Metric

Progress = Callable[[int, int], None]

MOST = 500
SIGNS = ("negative", "positive", "neutral")
THIRDS = ("low third", "middle third", "high third")


def measure_maps(
    model: nn.Module,
    split: Split,
    modalities: Sequence[str] | None = None,
    *,
    metric: Metric | None = None,
    groups: Sequence[str] | None = None,
    most: int = MOST,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """t-SNE and a linear probe of each modality, of each pair (of three or more) and of the fused representation.

    As in Fig. 8 of AGS and Figs. 2 and 4 of GLoMo. The probe sees all samples, the map at most ``most`` of them, the
    same for all representations. A map shows who is near whom in the representation, no more: look at the probe.

    Args:
        model: exposes ``encode`` and ``fuse``. Put in evaluation mode, and back.
        split: samples that it was not trained on.
        modalities: those to use; None for all that the split has.
        metric: of the probes; None for ``accuracy`` or ``r2``.
        groups: ``[N]``, the video or speaker of each sample, kept in one fold.
        most: samples in a map.
        seed: of maps, folds and resamples.
        progress: told of representations done, and of how many there are.

    Returns:
        Plain values: ``labels``, names of groups of samples by their target, and ``panels``: ``{name: {"points":
        [n, 2], "rows": [n], "labels": [n], "probe": {...} or None}}``.

    Raises:
        ValueError: fewer than 4 samples.
    """
    found = representations(model, split, modalities, pairs=True)
    found = {name: x for name, x in found.items() if np.isfinite(x).all()}
    target, task = np.asarray(split.targets), split.manifest.task
    probes = {}
    if enough_to_probe(len(split), groups):
        probes = linear_probes(found, target, task, metric=metric, groups=groups, seed=seed)
    names, member = label_groups(split)
    panels = {}
    for done, (name, x) in enumerate(found.items(), start=1):
        drawn = tsne(x, most=most, seed=seed)
        panels[name] = {
            "points": drawn.points.round(3).tolist(),
            "rows": drawn.rows.tolist(),
            "labels": member[drawn.rows].tolist(),
            "probe": probes[name].to_dict() if name in probes else None,
        }
        if progress is not None:
            progress(done, len(found))
    return {"labels": list(names), "panels": panels}


def label_groups(split: Split) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Groups of samples by their target, ``(names, [N])``: the classes, the largest first; or a score's sign.

    Scores that have no sign (no sentiment scale) come in thirds of the split; of several targets the first counts.
    """
    labels, target = split.manifest.labels, np.asarray(split.targets)
    if split.manifest.task == "classification":
        counts = np.bincount(target, minlength=labels.outputs)
        order = np.argsort(-counts, kind="stable")
        place = np.argsort(order)
        names = labels.classes or tuple(str(number) for number in range(labels.outputs))
        return tuple(names[number] for number in order), place[target].astype(np.int64)
    first = target.reshape(len(target), -1)[:, 0]
    if labels.scale is not None:
        return SIGNS, np.where(first < 0, 0, np.where(first > 0, 1, 2)).astype(np.int64)
    cuts = np.quantile(first, [1 / 3, 2 / 3])
    return THIRDS, np.searchsorted(cuts, first).astype(np.int64)
