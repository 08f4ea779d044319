"""What an audit is made of: its subject, a look inside the model, and what models of one modality say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from equipoise.data import Dataset, Split
from equipoise.diagnostics.competition import Competition, competition_strength
from equipoise.diagnostics.estimates import Estimate, Floats, estimate
from equipoise.diagnostics.experts import ExpertLoad, expert_loads
from equipoise.diagnostics.floors import groups_of
from equipoise.diagnostics.latents import FUSED, representations
from equipoise.diagnostics.maps import label_groups
from equipoise.diagnostics.probes import Probe, enough_to_probe, linear_probes
from equipoise.diagnostics.scores import Metric
from equipoise.diagnostics.subject import Subject, Task, of_function

Progress = Callable[[int, int], None]
Predict = Callable[[dict[str, Any], frozenset[str]], Any]

TARGET = "target"
_PARTS = 100  # of progress, for each stage


def of_mapping(
    data: Mapping[str, Any],
    predict: Predict | None,
    modalities: Sequence[str] | None,
    task: Task | None,
    metric: Metric | None,
) -> Subject:
    """A foreign model on its data."""
    if predict is None:
        raise ValueError("Parameter `predict` should be given where `data` is a mapping. Found None.")
    if TARGET not in data:
        raise ValueError(f"Parameter `data` should hold `{TARGET}` beside the modalities. Found {', '.join(data)}.")
    names = [name for name in data if name != TARGET] if modalities is None else list(modalities)
    if unknown := [name for name in names if name not in data]:
        raise ValueError(f"Parameter `modalities` should name what `data` holds. Found {unknown[0]!r}.")
    target = data[TARGET]
    values = target.detach().cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
    guess: Task = "classification" if values.dtype.kind in "iub" and values.ndim == 1 else "regression"
    return of_function(predict, {name: data[name] for name in names}, values, task=task or guess, metric=metric)


@dataclass(frozen=True)
class Inside:
    """What is seen inside a model of ours.

    Attributes:
        probes: of each modality's representation and of the fused one; none where samples are few.
        latent: ``[N, d]``, the last one.
        experts: of its mixtures.
        groups: ``[N]``, the video or speaker of each sample; None where that is not known.
    """

    probes: dict[str, Probe] = field(default_factory=dict)
    latent: Floats | None = None
    experts: list[ExpertLoad] = field(default_factory=list)
    groups: list[str] | None = None


def look_inside(
    model: nn.Module, rows: Split, dataset: Dataset | None, subject: Subject, seed: int, progress: Progress
) -> Inside:
    """Representations, and experts where there are any."""
    groups = None if dataset is None else groups_of(dataset, rows.rows)
    found = representations(model, rows, subject.modalities, pairs=False)
    wanted = {name: found[name] for name in (*subject.modalities, FUSED) if np.isfinite(found[name]).all()}
    probes = {}
    if enough_to_probe(len(subject), groups):
        probes = linear_probes(
            wanted, subject.target, subject.task, metric=subject.metric, groups=groups, seed=seed, progress=progress
        )
    names, member = label_groups(rows)
    experts = expert_loads(model, rows, subject.modalities, groups=[names[each] for each in member])
    return Inside(probes, found[FUSED], experts, groups)


def of_concepts(
    subject: Subject,
    concepts: Mapping[str, npt.ArrayLike],
    latent: Floats | None,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Estimate], dict[str, Competition]]:
    """How each modality's own model scores, and its competition strength where the joint latent is known."""
    alone, competition = {}, {}
    for number, (name, given) in enumerate(concepts.items()):
        concept = np.asarray(given, dtype=np.float64)
        if name not in subject.modalities or len(concept) != len(subject):
            raise ValueError(
                f"Parameter `concepts` should hold {len(subject)} outputs for some of {', '.join(subject.modalities)}. "
                f"Found {len(concept)} for {name}."
            )
        alone[name] = estimate(subject.points_of(concept), test=False, seed=seed)
        if latent is not None:
            competition[name] = competition_strength(latent, concept, seed=seed)
        progress(number + 1, len(concepts))
    progress(1, 1)
    return alone, competition


def has_floor(dataset: Dataset, name: str) -> bool:
    """Features, or transcripts where the text is tokens; token ids alone have none."""
    return bool(dataset.manifest.modalities[name].dim) or (name == "text" and dataset.texts is not None)


class Stages:
    """Several counts as one."""

    def __init__(self, count: int, progress: Progress | None) -> None:
        self.count, self.progress, self.at = count, progress, -1

    def next(self) -> Progress:
        """The next count, to be told of its own steps."""
        self.at += 1
        at = self.at
        self._tell(at * _PARTS)

        def step(done: int, total: int) -> None:
            self._tell(at * _PARTS + _PARTS * done // max(1, total))

        return step

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(min(done, self.count * _PARTS), self.count * _PARTS)
