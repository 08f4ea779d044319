"""One call that measures a model, and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import nn

from equipoise.data import Dataset, Split
from equipoise.diagnostics.audit_parts import Inside, Predict, Stages, has_floor, look_inside, of_concepts, of_mapping
from equipoise.diagnostics.audit_report import Report, finite
from equipoise.diagnostics.competition import Competition
from equipoise.diagnostics.contribution import Contributions, measure_contributions
from equipoise.diagnostics.emap import EMAP, measure_emap
from equipoise.diagnostics.estimates import Estimate, plain
from equipoise.diagnostics.floors import DataReport, data_report
from equipoise.diagnostics.interactions import measure_interactions
from equipoise.diagnostics.responses import Responses, measure_responses
from equipoise.diagnostics.scores import Metric
from equipoise.diagnostics.subject import Task, of_model
from equipoise.diagnostics.verdict import (
    Finding,
    Reading,
    chance_finding,
    contribution_findings,
    dominance_finding,
    interaction_finding,
    starvation_findings,
)

Progress = Callable[[int, int], None]


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
    stages = Stages(6 + with_floors + (rows is not None), progress)
    was_training = model is not None and model.training
    try:
        if model is not None:
            model.eval()
        if rows is not None:
            if model is None or predict is not None:
                raise ValueError("A dataset or split is for a model with `encode` and `fuse`; give others a mapping.")
            subject = of_model(model, rows, modalities, metric=metric, progress=stages.next())
        else:
            subject = of_mapping(cast(Mapping[str, Any], data), predict, modalities, task, metric)
            stages.next()
        if len(subject.modalities) < 2:
            raise ValueError(f"An audit compares two modalities or more. Found {', '.join(subject.modalities)}.")
        contributions = measure_contributions(subject, seed=seed, progress=stages.next())
        responses = measure_responses(subject, seed=seed, progress=stages.next())
        interactions = measure_interactions(subject, seed=seed, progress=stages.next())
        emap = measure_emap(subject, seed=seed, progress=stages.next())
        seen = Inside()
        if rows is not None:
            dataset = data if isinstance(data, Dataset) else None
            seen = look_inside(cast(nn.Module, model), rows, dataset, subject, seed, stages.next())
    finally:
        if model is not None:
            model.train(was_training)
    known = None
    if with_floors:
        names = [name for name in subject.modalities if split != "train" and has_floor(cast(Dataset, data), name)]
        known = data_report(
            cast(Dataset, data), names, split=split, metric=subject.metric, seed=seed, progress=stages.next()
        )
    alone, competition = of_concepts(subject, concepts or {}, seen.latent, seed, stages.next())

    assert subject.metric is not None
    name = subject.metric
    findings = _findings(name, len(subject), contributions, responses, emap, seen, known, alone, competition, movement)
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
        "probes": {each: found.to_dict() for each, found in seen.probes.items()},
        "experts": [each.to_dict() for each in seen.experts],
        "alone": alone,
        "competition": {each: found.to_dict() for each, found in competition.items()},
        "movement": {each: dict(found) for each, found in (movement or {}).items()},
        "samples": samples,
    }
    return Report(cast(dict[str, Any], finite(plain(content))))


def _findings(
    name: Metric,
    samples: int,
    contributions: Contributions,
    responses: Responses,
    emap: EMAP,
    seen: Inside,
    known: DataReport | None,
    alone: Mapping[str, Estimate],
    competition: Mapping[str, Competition],
    movement: Mapping[str, Mapping[str, Any]] | None,
) -> list[Finding]:
    """What the rules say of all that was measured."""
    constant = contributions.constant
    removal = {each: found.removal for each, found in contributions.modalities.items()}
    inside: dict[str, dict[str, Reading]] = {}
    for each, response in responses.modalities.items():
        inside[each] = {"the model with it alone": response.alone}
        if each in seen.probes:
            inside[each]["a linear probe"] = seen.probes[each].score
    floor = {} if known is None else {each: found.score for each, found in known.floors.items()}
    reference: dict[str, tuple[str, Reading]] = {each: ("trained alone", found) for each, found in alone.items()}
    for each in removal:
        if each in floor and each not in reference:
            reference[each] = ("in a linear model of pooled features", floor[each])
    shares = {each: (found.share, found.share_low, found.share_high) for each, found in responses.modalities.items()}
    return [
        *chance_finding(name, contributions.score, constant),
        *contribution_findings(
            name, removal, alone=contributions.alone, constant=constant, samples=samples, floors=floor
        ),
        *starvation_findings(
            name,
            inside,
            reference,
            constant=constant,
            groups=seen.groups,
            competition={each: found.to_dict() for each, found in competition.items()},
            movement=movement,
        ),
        *dominance_finding(shares),
        *interaction_finding(name, emap.gain, emap.additive),
        *(_leaks(known.leakage.messages) if known is not None and known.leakage is not None else []),
    ]


def _leaks(messages: Iterable[str]) -> list[Finding]:
    return [Finding(None, "leak", f"The splits leak: {message.rstrip('.')}.", {}) for message in messages]
