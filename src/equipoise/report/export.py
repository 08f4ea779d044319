"""From run directories to a saved model that can be published."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from equipoise.metrics import better
from equipoise.report.card import model_card
from equipoise.report.contributions import Contributions, contributions
from equipoise.report.runs import read_columns, run_folders
from equipoise.training.calibration import calibrate
from equipoise.training.files import read_json
from equipoise.training.model_info import describe
from equipoise.training.pretrained import check_target, save_pretrained
from equipoise.training.run import load_run


def export_run(
    path: str | Path,
    to: str | Path,
    *,
    seed: int | None = None,
    data: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Save the model of a run, or of the best of several seeds, with a card that tells of all of them.

    Args:
        path: a run directory, or one with ``seed-N`` in it.
        to: the folder to make.
        seed: whose weights; None for the seed whose validation score is best.
        data: where the dataset is now; None for where it was in training.
        license: of the weights, as the hub names it (``cc-by-4.0``), for the card.
        overwrite: replace a saved model that is there.

    Returns:
        ``{"folder", "seed", "seeds", "contributions"}``.

    Raises:
        FileNotFoundError: no finished run, no dataset, or no text encoder where it was.
        FileExistsError: ``to`` is there, and is no saved model to be replaced.
        ValueError: a seed that was not run.
    """
    check_target(Path(to), overwrite=overwrite)
    folders = run_folders(path)
    results = [_result(folder) for folder in folders]
    seeds = [result["seed"] for result in results]
    if seed is not None and seed not in seeds:
        raise ValueError(f"Parameter `seed` should be one of {seeds}, the seeds of {path}. Found `seed = {seed}`.")
    scores = [validation_score(folder, result) for folder, result in zip(folders, results, strict=True)]
    position = seeds.index(seed) if seed is not None else max(range(len(seeds)), key=lambda i: scores[i])
    result = results[position]
    chosen_by = None
    if len(seeds) > 1:
        chosen_by = f"the best by validation {_column(result)}" if seed is None else "chosen by hand"

    found: list[Contributions] = []
    for folder in folders:  # one model in memory at a time
        trained = load_run(folder, data)
        test, train = trained.dataset.split("test"), trained.dataset.split("train")
        found.append(contributions(trained.model, test, trained.modalities, train))
    trained = load_run(folders[position], data)
    forget(trained.model)
    run = {key: result[key] for key in ("protocol", "seed", "select", "epoch", "epochs", "balancer")}
    info = describe(
        trained.dataset,
        trained.modalities,
        trained.config.text,
        {**run, "seeds": seeds, "chosen_by": chosen_by, "loss": trained.config.train.loss},
    )
    info = replace(info, calibration=calibrate(trained.model, trained.dataset.split("valid"), trained.modalities))
    splits = trained.dataset.manifest.splits
    card = model_card(info, results, found, config=trained.config, splits=splits, license=license)
    saved = save_pretrained(trained.model, to, info, card=card, overwrite=overwrite)
    return {"folder": saved, "seed": result["seed"], "seeds": seeds, "contributions": found}


def validation_score(folder: Path, result: dict[str, Any]) -> float:
    """The chosen epoch's validation score; larger is better, and a score that is no number is worst."""
    columns = read_columns(folder / "metrics.csv")
    name = _column(result)
    value = dict(zip(columns["epoch"], columns["valid_loss" if name == "loss" else f"valid/{name}"], strict=True))[
        float(result["epoch"])
    ]
    return -math.inf if math.isnan(value) else value * (-1 if better(name) == "min" else 1)


def forget(model: nn.Module) -> None:
    """Drop what a model remembers of its training samples, which are not to be published and serve training alone."""
    for part in model.modules():
        drop = getattr(part, "forget", None)
        if callable(drop):
            drop()


def _result(folder: Path) -> dict[str, Any]:
    if not (folder / "test.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished run: test.json not found. Finish it with `equipoise train`."
        )
    return read_json(folder / "test.json")


def _column(result: dict[str, Any]) -> str:
    return "loss" if result["select"] == "last" else str(result["select"])
