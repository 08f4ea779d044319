"""One call that measures a model, and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from equipoise.data import Dataset, Split
from equipoise.diagnostics.audit_report import Report, finite
from equipoise.diagnostics.competition import Competition, competition_strength
from equipoise.diagnostics.contribution import measure_contributions
from equipoise.diagnostics.emap import measure_emap
from equipoise.diagnostics.estimates import Estimate, estimate, plain
from equipoise.diagnostics.floors import data_report, groups_of
from equipoise.diagnostics.interactions import measure_interactions
from equipoise.diagnostics.latents import FUSED, representations
from equipoise.diagnostics.probes import Probe, linear_probe
from equipoise.diagnostics.responses import measure_responses
from equipoise.diagnostics.scores import Metric
from equipoise.diagnostics.subject import Subject, Task, of_function, of_model
from equipoise.diagnostics.verdict import (
    Finding,
    Reading,
    chance_finding,
    contribution_findings,
    dominance_finding,
    interaction_finding,
    starvation_findings,
)

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Predict = Callable[[dict[str, Any], frozenset[str]], Any]

TARGET = "target"
_LEAST_PROBED = 40
_PARTS = 100  # of progress, for each stage


def audit(
    model: nn.Module | None,
    data: Dataset | Split | Mapping[str, Any],
    predict: Predict | None = None,
    *,
    modalities: Sequence[str] | None = None,
    split: str = "test",
    task: Task | None = None,
    metric: Metric | None = None,
    concepts: Mapping[str, npt.ArrayLike] | None = None,
    movement: Mapping[str, Mapping[str, Any]] | None = None,
    floors: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Whether each modality does anything in a model, in words, numbers and pictures.

    A model of ours (it exposes ``encode`` and ``fuse``) is asked on a dataset or a split of one; any other through
    ``predict``, on a mapping of tensors. Of a dataset, what its features tell before any training is measured too: how
    far a line gets with each modality. What is known decides which rules can fire: "noise" needs the dataset, "starved"
    needs the dataset or ``concepts``.

    Args:
        model: put in evaluation mode while it is asked, and back. None where ``predict`` needs no module.
        data: a dataset, a split, or ``{m: [N, ...], "target": [N]}``.
        predict: ``({m: rows}, kept)`` to outputs, as :func:`equipoise.diagnostics.subject.of_function` asks it; for a
            mapping only.
        modalities: those to look at; None for all.
        split: of the dataset. Of train no floor is told, for it is learned there.
        task: of a mapping; None for classification where the targets are integers.
        metric: of all scores; None for ``accuracy`` or ``r2``.
        concepts: ``{m: [N] or [N, C]}``, outputs of a model trained on m alone, for the same samples in the same order.
        movement: ``{m: {"joint", "alone", "share"}}`` of the encoders, to be told beside.
        floors: whether the dataset is looked at.
        seed: of all that is drawn.
        progress: told of parts done, and of how many there are.

    Raises:
        ValueError: data and model that do not fit, no ``predict`` for a mapping, or fewer than two modalities.
    """
    rows = data.split(split) if isinstance(data, Dataset) else data if isinstance(data, Split) else None
    with_floors = floors and isinstance(data, Dataset) and {"train", split} <= set(data.splits)
    stages = _Stages(6 + with_floors + (rows is not None), progress)
    was_training = model is not None and model.training
    try:
        if model is not None:
            model.eval()
        if rows is not None:
            if model is None or predict is not None:
                raise ValueError("A dataset or split is for a model with `encode` and `fuse`; give others a mapping.")
            subject = of_model(model, rows, modalities, metric=metric, progress=stages.next())
        else:
            subject = _of_mapping(cast(Mapping[str, Any], data), predict, modalities, task, metric)
            stages.next()
        if len(subject.modalities) < 2:
            raise ValueError(f"An audit compares two modalities or more. Found {', '.join(subject.modalities)}.")
        contributions = measure_contributions(subject, seed=seed, progress=stages.next())
        responses = measure_responses(subject, seed=seed, progress=stages.next())
        interactions = measure_interactions(subject, seed=seed, progress=stages.next())
        emap = measure_emap(subject, seed=seed, progress=stages.next())
        probes: dict[str, Probe] = {}
        latent = groups = None
        if rows is not None:
            groups = groups_of(data, rows.rows) if isinstance(data, Dataset) else None
            probes, latent = _probes(cast(nn.Module, model), rows, groups, subject, seed, stages.next())
    finally:
        if model is not None:
            model.train(was_training)
    known = None
    if with_floors:
        names = [name for name in subject.modalities if split != "train" and _has_floor(cast(Dataset, data), name)]
        known = data_report(
            cast(Dataset, data), names, split=split, metric=subject.metric, seed=seed, progress=stages.next()
        )
    alone, competition = _of_concepts(subject, concepts or {}, latent, seed, stages.next())

    assert subject.metric is not None
    name, constant = subject.metric, contributions.constant
    removal = {each: found.removal for each, found in contributions.modalities.items()}
    inside: dict[str, dict[str, Reading]] = {}
    for each, response in responses.modalities.items():
        inside[each] = {"the model with it alone": response.alone}
        if each in probes:
            inside[each]["a linear probe"] = probes[each].score
    floor = {} if known is None else {each: found.score for each, found in known.floors.items()}
    reference: dict[str, tuple[str, Reading]] = {each: ("trained alone", found) for each, found in alone.items()}
    for each in subject.modalities:
        if each in floor and each not in reference:
            reference[each] = ("in a linear model of pooled features", floor[each])
    shares = {each: (found.share, found.share_low, found.share_high) for each, found in responses.modalities.items()}
    findings: list[Finding] = [
        *chance_finding(name, contributions.score, constant),
        *contribution_findings(
            name, removal, alone=contributions.alone, constant=constant, samples=len(subject), floors=floor
        ),
        *starvation_findings(
            name,
            inside,
            reference,
            constant=constant,
            groups=groups,
            competition={each: found.to_dict() for each, found in competition.items()},
            movement=movement,
        ),
        *dominance_finding(shares),
        *interaction_finding(name, emap.gain, emap.additive),
        *(_leaks(known.leakage.messages) if known is not None and known.leakage is not None else []),
    ]
    samples = {"ids": subject.ids, **contributions.samples}
    about = {
        "model": None if model is None else type(model).__name__,
        "dataset": None if rows is None else rows.manifest.name,
        "split": None if rows is None else (split if isinstance(data, Dataset) else rows.name),
        "task": subject.task,
        "metric": name,
        "samples": len(subject),
        "modalities": list(subject.modalities),
        "seed": seed,
    }
    content = {
        "about": about,
        "verdict": findings,
        "contributions": replace(contributions, samples={}),
        "responses": replace(responses, samples={}),
        "interactions": replace(interactions, samples={}).to_dict(),
        "emap": replace(emap, samples=np.zeros(0)),
        "data": None if known is None else known.to_dict(),
        "probes": {each: found.to_dict() for each, found in probes.items()},
        "alone": alone,
        "competition": {each: found.to_dict() for each, found in competition.items()},
        "movement": {each: dict(found) for each, found in (movement or {}).items()},
        "samples": samples,
    }
    return Report(cast(dict[str, Any], finite(plain(content))))


def _of_mapping(
    data: Mapping[str, Any],
    predict: Predict | None,
    modalities: Sequence[str] | None,
    task: Task | None,
    metric: Metric | None,
) -> Subject:
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


def _probes(
    model: nn.Module, rows: Split, groups: list[str] | None, subject: Subject, seed: int, progress: Progress
) -> tuple[dict[str, Probe], Floats | None]:
    """Probes of each modality's representation and of the fused one, and the last latent."""
    found = representations(model, rows, subject.modalities, pairs=False)
    enough = len(set(groups)) >= 5 if groups is not None else True
    if len(subject) < _LEAST_PROBED or not enough:
        return {}, found[FUSED]
    wanted = [name for name in (*subject.modalities, FUSED) if name in found and np.isfinite(found[name]).all()]
    probes = {}
    for number, name in enumerate(wanted):
        probes[name] = linear_probe(
            found[name], subject.target, subject.task, metric=subject.metric, groups=groups, seed=seed
        )
        progress(number + 1, len(wanted))
    return probes, found[FUSED]


def _of_concepts(
    subject: Subject,
    concepts: Mapping[str, npt.ArrayLike],
    latent: Floats | None,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Estimate], dict[str, Competition]]:
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


def _has_floor(dataset: Dataset, name: str) -> bool:
    """Features, or transcripts where the text is tokens; token ids alone have none."""
    return bool(dataset.manifest.modalities[name].dim) or (name == "text" and dataset.texts is not None)


def _leaks(messages: Iterable[str]) -> list[Finding]:
    return [Finding(None, "leak", f"The splits leak: {message.rstrip('.')}.", {}) for message in messages]


class _Stages:
    """Several counts as one."""

    def __init__(self, count: int, progress: Progress | None) -> None:
        self.count, self.progress, self.at = count, progress, -1

    def next(self) -> Progress:
        self.at += 1
        at = self.at
        self._tell(at * _PARTS)

        def step(done: int, total: int) -> None:
            self._tell(at * _PARTS + _PARTS * done // max(1, total))

        return step

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(min(done, self.count * _PARTS), self.count * _PARTS)
