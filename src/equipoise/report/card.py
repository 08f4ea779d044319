"""The model card of a saved model: data, protocol, seeds, metrics with spread, what each modality contributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from equipoise.report.card_metadata import card_metadata, public_settings
from equipoise.report.contributions import Contributions, contribution_table
from equipoise.report.results import SHOWN, over_seeds, result_table
from equipoise.report.tables import Table, cell_text, to_markdown
from equipoise.training.config import RunConfig
from equipoise.training.model_info import ModelInfo


def model_card(
    info: ModelInfo,
    results: Sequence[Mapping[str, Any]],
    found: Sequence[Contributions],
    *,
    config: RunConfig,
    splits: Mapping[str, int],
    license: str | None = None,
) -> str:
    """Markdown under the hub's metadata, with figures of all seeds and the weights of one, ``info.run["seed"]``.

    Args:
        info: what surrounds the model.
        results: what ``test.json`` holds, one a seed.
        found: what each modality contributes, one a seed.
        config: of the training; no path in it is told.
        splits: samples of each split.
        license: of the weights, as the hub names it.

    Raises:
        ValueError: the metadata would not be the hub's.
    """
    from huggingface_hub import ModelCard

    body = "\n".join(
        [
            *_opening(info, results),
            *_use(),
            *_data(info, results[0]["dataset"], splits),
            *_results(info, results),
            *_contributions(found),
            *_training(config, results[0]),
            *_limits(info, config),
        ]
    )
    card = ModelCard(f"---\n{card_metadata(info, results, license)}\n---\n\n{body}")
    return str(card)


def _opening(info: ModelInfo, results: Sequence[Mapping[str, Any]]) -> list[str]:
    first = results[0]
    labels, outputs = info.labels, info.labels.outputs
    what = "a number" if outputs == 1 else f"{outputs} numbers"
    if labels.kind == "classification":
        what = f"one of {outputs} classes"
    balancers = " + ".join(first["balancer"]) or "no balancer"
    made_up = " **The data are synthetic: the figures say nothing about the world.**" if info.synthetic else ""
    return [
        f"# {first['model']} on {info.dataset}",
        "",
        f"Predicts {what} from {_listed(list(info.modalities))}, with any of them missing. Trained by equipoise with "
        f"{balancers}.{made_up}",
        "",
    ]


def _use() -> list[str]:
    return [
        "## Use",
        "",
        "```python",
        "from equipoise.training.pretrained import from_pretrained",
        "",
        'model, info = from_pretrained("THIS_FOLDER_OR_HUB_NAME")   # in evaluation mode',
        "```",
        "",
        "`equipoise evaluate THIS_FOLDER --data DATASET` scores it on a dataset with the same modalities. It reads raw "
        "features: the normaliser is inside.",
        "",
    ]


def _data(info: ModelInfo, dataset: Mapping[str, Any], splits: Mapping[str, int]) -> list[str]:
    sizes = ", ".join(f"{count} {name}" for name, count in splits.items())
    rows = tuple(
        (name, _kind(info, name), each.extractor or "not known", f"{each.shortest} / {each.mean:.1f} / {each.longest}")
        for name, each in info.modalities.items()
    )
    table = Table("What it reads", ("modality", "input", "extractor", "frames: least / mean / most"), rows)
    leaks = [f"- Leakage: {message}" for message in dataset.get("leakage", [])] if dataset.get("leaks") else []
    return [
        "## Data",
        "",
        f"- Dataset: {_one_line(info.dataset)}{' (synthetic data)' if info.synthetic else ''}; samples: {sizes}.",
        f"- Source: {_one_line(info.source) or 'not known'}",
        f"- Labels: {_labels(info)}",
        *leaks,
        "",
        _untitled(table),
    ]


def _results(info: ModelInfo, results: Sequence[Mapping[str, Any]]) -> list[str]:
    seed = info.run.get("seed")
    one = next((result for result in results if result["seed"] == seed), results[0])
    names = [name for name in SHOWN if name in one["metrics"]]
    cells = over_seeds([one["metrics"]], names)
    own = ", ".join(f"{name} {cell_text(cell)}" for name, cell in zip(names, cells, strict=True))
    chosen = info.run.get("chosen_by")
    several = (
        f"The weights are those of seed {seed}{f', {chosen}' if chosen else ''}. Its own test figures: {own}."
        if len(results) > 1
        else f"The weights are those of the one seed that was run, {seed}: nothing is known of the spread over seeds."
    )
    return ["## Results on the test split", "", to_markdown(result_table(results)), several, ""]


def _contributions(found: Sequence[Contributions]) -> list[str]:
    metric = found[0].metric
    (full,) = over_seeds([{metric: each.full} for each in found], [metric])
    return [
        "## What each modality contributes",
        "",
        _untitled(contribution_table(found)),
        "From the same weights, with modalities left out of the test samples; nothing was trained again. The Shapley "
        "values share out the way from the best constant by the training labels, "
        f"{metric} {cell_text(found[0].constant)}, to all modalities, {cell_text(full)}; positive is better. They say "
        "what this model takes from a modality, not what the modality holds.",
        "",
    ]


def _training(config: RunConfig, first: Mapping[str, Any]) -> list[str]:
    from equipoise import __version__

    count = f"{first['parameters']:,} parameters. " if "parameters" in first else ""
    return [
        "## Training",
        "",
        f"{count}Made by equipoise {__version__} with these settings of `equipoise train` (data and seeds aside):",
        "",
        "```yaml",
        yaml.safe_dump(public_settings(config), sort_keys=False, allow_unicode=True).rstrip(),
        "```",
        "",
    ]


def _limits(info: ModelInfo, config: RunConfig) -> list[str]:
    lines = [
        "- The figures hold for features made as above. With other extractors nothing is known.",
        "- Spread is over seeds of the training alone: data, splits and features were the same.",
    ]
    if len(info.modalities) > 1 and not config.train.drop_modalities:
        lines.append("- No modality was dropped in training: with one missing, it is given what it may never have met.")
    if info.text is not None:
        lines.append("- The text encoder inside comes under its own licence.")
    if info.synthetic:
        lines.append("- Synthetic data: a demonstration, of no use on real input.")
    return ["## Limits", "", *lines, ""]


def _untitled(table: Table) -> str:
    """A table under a heading of the card's own."""
    return to_markdown(table).split("\n\n", 1)[1]


def _kind(info: ModelInfo, name: str) -> str:
    dim, text = info.modalities[name].dim, info.text
    if name != "text" or text is None:
        return f"features, {dim} wide"
    encoder = text.origin or Path(text.encoder).name
    if text.mode == "frozen":
        return f"transcripts, by frozen {encoder}, {dim} wide"
    return f"transcripts, by {encoder}{', fine-tuned' if text.trainable else ', frozen'}, ≤ {text.max_tokens} tokens"


def _labels(info: ModelInfo) -> str:
    labels = info.labels
    if labels.kind == "classification":
        return f"{labels.outputs} classes" + (f": {', '.join(labels.classes)}." if labels.classes else ".")
    span = f" in [{labels.range[0]:g}, {labels.range[1]:g}]" if labels.range else ""
    scale = f"; metrics on the scale of {labels.scale.upper()}" if labels.scale else ""
    targets = f" ({', '.join(labels.targets)})" if labels.targets else ""
    return f"regression, {labels.outputs} output{'s' if labels.outputs > 1 else ''}{targets}{span}{scale}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
