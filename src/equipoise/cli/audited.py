"""A run directory or saved model, opened for an audit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from equipoise.data import Dataset
    from equipoise.training.config import RunConfig


@dataclass(frozen=True)
class Audited:
    """A model with what it reads; ``trained_on`` and ``config`` are of a run."""

    model: nn.Module
    dataset: Dataset
    modalities: tuple[str, ...]
    trained_on: Dataset | None = None
    config: RunConfig | None = None


def opened(folder: Path, data: str | None) -> Audited:
    """What is in a folder.

    Raises:
        FileNotFoundError: no run, or no dataset.
        ValueError: a run that has not finished or has several seeds, or data that do not fit.
    """
    from equipoise.cli.evaluate import check_fit, open_run
    from equipoise.cli.saved import is_saved_model, open_saved
    from equipoise.report.runs import run_folders

    if is_saved_model(folder):
        model, info, dataset = open_saved(folder, data)
        return Audited(model, dataset, tuple(info.modalities))
    if (seeds := run_folders(folder)) != [folder]:
        raise ValueError(f"{folder} holds {len(seeds)} seeds. Name one of them: {seeds[0]}.")
    trained, dataset = open_run(folder, data)
    check_fit(trained.dataset.manifest, dataset.manifest, trained.modalities)
    return Audited(trained.model, dataset, trained.modalities, trained.dataset, trained.config)
