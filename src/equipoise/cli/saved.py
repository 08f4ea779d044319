"""Scores of a saved model (`equipoise export`), which brings everything but the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from equipoise.data import Dataset
    from equipoise.training.model_info import ModelInfo


def is_saved_model(folder: Path) -> bool:
    """Whether a folder looks like a saved model rather than a run."""
    return (folder / "config.json").is_file() and not (folder / "config.yaml").is_file()


def score_saved(folder: Path, data: str | None, split: str, drop: Sequence[str]) -> dict[str, Any]:
    """The metrics of a saved model on one split of a dataset, as `test.json` has them.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: no dataset was named, or it does not fit the model; a folder that is damaged.
    """
    from equipoise.cli.evaluate import without
    from equipoise.training.evaluate import evaluate
    from equipoise.training.results import dataset_report, test_report

    model, info, dataset = open_saved(folder, data, drop)
    kept = without(tuple(info.modalities), drop)
    rows = dataset.split(split)
    found = evaluate(model, rows, modalities=kept, loss=info.run.get("loss"))
    told = {"protocol": "honest", "seed": None, "balancer": [], **info.run}
    return {
        "split": split,
        "modalities_used": list(kept),
        "model": type(model).__name__,
        **{key: told[key] for key in ("protocol", "seed", "balancer", "select", "epoch", "epochs") if key in told},
        **test_report(found, rows),
        "dataset": dataset_report(dataset),
    }


def open_saved(folder: Path, data: str | None, drop: Sequence[str] = ()) -> tuple[nn.Module, ModelInfo, Dataset]:
    """A saved model, what it says of itself, and the dataset to score it on, with its text as the model reads it.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: no dataset was named, or it does not fit the model without ``drop``; a folder that is damaged.
    """
    from equipoise.cli.evaluate import check_fit, without
    from equipoise.training.config import TextConfig
    from equipoise.training.prepare import open_dataset
    from equipoise.training.pretrained import from_pretrained

    if data is None:
        raise ValueError(f"{folder} is a saved model, which knows of no dataset. Name one: `--data DIR`.")
    model, info = from_pretrained(folder)
    text = info.text
    settings = (
        TextConfig() if text is None else TextConfig(encoder=text.encoder, mode=text.mode, max_tokens=text.max_tokens)
    )
    dataset = open_dataset(data, settings)
    check_fit(info, dataset.manifest, without(tuple(info.modalities), drop))
    return model, info, dataset
