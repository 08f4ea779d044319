"""What a model card says to machines, and which of a run's settings it may tell at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.report.results import SHOWN, over_seeds
from equipoise.report.tables import Spread, cell_text
from equipoise.training.config import RunConfig
from equipoise.training.model_info import ModelInfo

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def card_metadata(info: ModelInfo, results: Sequence[Mapping[str, Any]], license: str | None) -> str:
    """YAML as the Hugging Face Hub reads it, with each test metric's mean over seeds as the model's results."""
    from huggingface_hub import EvalResult, ModelCardData

    first = results[0]
    names = [name for name in SHOWN if name in first["metrics"]]
    seeds = ", ".join(str(result["seed"]) for result in results)
    evaluated = [
        EvalResult(
            task_type="other",
            task_name=f"multimodal {info.labels.kind}",
            dataset_type=re.sub(r"[^\w.-]+", "-", info.dataset.lower()),
            dataset_name=info.dataset + (" (synthetic data)" if info.synthetic else ""),
            dataset_split="test",
            metric_type=name,
            metric_name=name if len(results) == 1 else f"{name}, {cell_text(cell)} (mean ± sd over seeds {seeds})",
            metric_value=round(cell.mean, 6),
        )
        for name, cell in zip(names, over_seeds([result["metrics"] for result in results], names), strict=True)
        if isinstance(cell, Spread)
    ]
    text = info.text
    fine_tuned = text is not None and text.mode == "finetune" and _HUB_NAME.fullmatch(text.origin or text.encoder)
    data = ModelCardData(
        model_name=f"{first['model']}-{info.dataset}",
        library_name="equipoise",
        license=license,
        base_model=(text.origin or text.encoder) if text is not None and fine_tuned else None,
        tags=["equipoise", "multimodal", *info.modalities],
        metrics=names,
        eval_results=evaluated,
    )
    return str(data.to_yaml())


def public_settings(config: RunConfig) -> dict[str, Any]:
    """A config's settings without the places of its author's disk: of each path only the last name is left."""
    settings = config.model_dump(mode="json", exclude={"data", "seed", "threads"})
    return {key: _without_folders(value) for key, value in settings.items()}


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and ("/" in value or "\\" in value) and not _HUB_NAME.fullmatch(value):
        return Path(value).name
    return value
