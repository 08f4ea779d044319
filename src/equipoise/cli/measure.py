"""Robustness rows of one run or saved model, computed once and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.progress import Callback

if TYPE_CHECKING:
    from torch import nn

    from equipoise.data import Dataset
    from equipoise.training.run import TrainedRun

FOLDER = "robustness"
RATES = [i / 10 for i in range(11)]
FRAMES = [0.0, 0.25, 0.5, 0.75, 0.9]
NOISE = [0.0, 0.25, 0.5, 1.0, 2.0]
DRAWS = 3
VERSION = 1  # raised whenever the same settings give other rows


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure: levels above 0 of each corruption, how often each is drawn, and on which split."""

    drop: tuple[float, ...]
    frames: tuple[float, ...]
    noise: tuple[float, ...]
    draws: int
    split: str


def check_settings(
    drop: Sequence[float], frames: Sequence[float], noise: Sequence[float], draws: int, split: str
) -> Settings:
    """The settings with levels sorted, each once, and without 0, which is the plain score.

    Raises:
        ValueError: a rate outside 0 to 1, a negative deviation, or no draw.
    """
    for flag, rates in (("--drop", drop), ("--frames", frames)):
        for rate in rates:
            if not 0 <= rate <= 1:
                raise ValueError(f"Parameter `{flag}` should hold rates from 0 to 1. Found {rate:g}.")
    for scale in noise:
        if not 0 <= scale < math.inf:
            raise ValueError(f"Parameter `--noise` should hold deviations of at least 0. Found {scale:g}.")
    if draws < 1:
        raise ValueError(f"Parameter `--draws` should be 1 or more. Found {draws}.")
    drop, frames, noise = (tuple(sorted({float(level) for level in given} - {0.0})) for given in (drop, frames, noise))
    return Settings(drop, frames, noise, draws, split)


def measure(
    trained: TrainedRun, dataset: Dataset, folder: Path, settings: Settings, step: Callback
) -> list[dict[str, Any]]:
    """Every row of one run, read from its directory where they were measured before.

    Args:
        trained: the run.
        dataset: what to score it on.
        folder: its directory; rows are kept in ``robustness/`` there, under a digest of weights, data and settings.
        settings: what to measure.
        step: told of rows done and rows in all.

    Raises:
        OSError: the rows can't be written.
    """
    about = {name: getattr(trained.config, name).model_dump(mode="json") for name in ("model", "text")}
    return measure_model(
        trained.model, trained.modalities, dataset, folder, settings, step, about=about, train=trained.dataset
    )


def measure_model(
    model: nn.Module,
    modalities: Sequence[str],
    dataset: Dataset,
    folder: Path,
    settings: Settings,
    step: Callback,
    *,
    about: dict[str, Any],
    train: Dataset,
) -> list[dict[str, Any]]:
    """Every row of a model, read from a folder where they were measured before.

    Args:
        model: exposes ``encode`` and ``fuse``.
        modalities: those that it reads.
        dataset: what to score it on.
        folder: rows are kept in ``robustness/`` there.
        settings: what to measure.
        step: told of rows done and rows in all.
        about: what else decides the rows, beside weights, data and settings.
        train: whose training split says how much a feature varies; no noise where it has none.

    Raises:
        OSError: the rows can't be written.
    """
    from equipoise.diagnostics.robustness import count_rows
    from equipoise.training.results import write_json

    key = {
        "version": VERSION,
        "weights": weights_digest(model),
        "data": data_digest(dataset),
        "modalities": list(modalities),
        **about,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()},
    }
    file = folder / FOLDER / f"rows-{_digest(json.dumps(key, sort_keys=True).encode())[:16]}.json"
    if (kept := _read(file, key)) is not None:
        step(1, 1, {})
        return kept
    noisy = deviations(train, modalities) if settings.noise and "train" in train.splits else {}
    counts = {"drop": len(settings.drop), "frames": len(settings.frames), "noise": len(settings.noise)}
    total = count_rows(modalities, len(noisy), **counts, draws=settings.draws)
    rows: list[dict[str, Any]] = []
    for row in _rows(model, modalities, dataset, settings, noisy):
        rows.append(row)
        step(len(rows), total, {})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"key": key, "rows": rows})
    found = _read(file, key)
    assert found is not None
    return found


def deviations(dataset: Dataset, modalities: Sequence[str]) -> dict[str, Any]:
    """``{m: [d]}``, how much each feature varies over the training split; token ids are left out."""
    train, dims = dataset.split("train"), dataset.manifest.modalities
    return {name: train.statistics(name)[1] for name in modalities if dims[name].dim}


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def data_digest(dataset: Dataset) -> str:
    """SHA-256 over the checksums of a dataset's files: the same wherever it lies."""
    return _digest(json.dumps(dataset.manifest.files, sort_keys=True).encode())


def _rows(
    model: nn.Module, modalities: Sequence[str], dataset: Dataset, settings: Settings, noisy: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    from equipoise.diagnostics.robustness import missing_frames, missing_modalities, noisy_features, subsets

    given = (model, dataset.split(settings.split), modalities)
    return chain(
        subsets(*given),
        missing_modalities(*given, rates=settings.drop, draws=settings.draws),
        missing_frames(*given, rates=settings.frames, draws=settings.draws),
        noisy_features(*given, scales=settings.noise, deviations=noisy, draws=settings.draws),
    )


def _read(file: Path, key: dict[str, Any]) -> list[dict[str, Any]] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = content["rows"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # not measured yet, or half of it lost: measured again
    return rows if content.get("key") == key else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
