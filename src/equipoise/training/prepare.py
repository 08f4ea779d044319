"""From a config to data, model and balancer. Config objects end here: classes get flat keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from equipoise.balancers import BALANCERS
from equipoise.core import Balancer, Chain
from equipoise.data import DataError, Dataset, Split, load
from equipoise.models import MODELS
from equipoise.training.arguments import unknown
from equipoise.training.config import BalancerConfig, ModelConfig, RunConfig, TextConfig
from equipoise.training.foreign import build_foreign, is_foreign
from equipoise.training.seeds import seed_all

_ENCODE_BATCH = 64


def open_dataset(
    data: str,
    text: TextConfig,
    *,
    device: torch.device | str = "cpu",
    splits: Sequence[str] = ("train", "valid", "test"),
) -> Dataset:
    """The dataset, with text as token ids (fine-tuned encoder) or as the vectors of a frozen one, computed once.

    Raises:
        FileNotFoundError: no such dataset or encoder.
        DataError: an encoder for a dataset without transcripts, or a split that is missing.
    """
    dataset = load(data)
    if missing := [name for name in splits if name not in dataset.splits]:
        raise DataError(
            f"{data} should have the splits train, valid and test. Found no {' and no '.join(missing)}. Make them with "
            f"`equipoise data split {data} --to DIR` (`--keep-test` leaves the test rows as they are)."
        )
    if dataset.manifest.task == "classification" and dataset.manifest.labels.outputs < 2:
        raise DataError(f"{data} should have at least two classes. Found {dataset.manifest.labels.classes}.")
    if text.encoder is None:
        return dataset
    from equipoise.features.text import cache_key, encode_frozen, tokenize

    encoder, max_tokens, texts = text.encoder, text.max_tokens, dataset.texts
    if texts is None:
        raise DataError(
            f"`text.encoder = {encoder!r}` reads transcripts, and {data} has none. Leave it out (`--text none`), or "
            "import the texts."
        )

    def compute() -> Iterable[Any]:
        if text.mode == "finetune":
            return tokenize(texts, encoder, max_tokens)
        return encode_frozen(texts, encoder, max_tokens=max_tokens, batch_size=_ENCODE_BATCH, device=device)

    what = "tokens" if text.mode == "finetune" else "frozen"
    key = f"text-{what}-{cache_key(encoder, {'what': what, 'max_tokens': max_tokens})}"
    return dataset.derive("text", key=key, compute=compute)


def chosen_modalities(dataset: Dataset, wanted: Sequence[str] | None, text: TextConfig) -> tuple[str, ...]:
    """The modalities to use, in the dataset's order.

    Raises:
        ValueError: one that the dataset lacks, none at all, or a text encoder without text.
    """
    names = tuple(wanted) if wanted is not None else dataset.modalities
    for name in names:
        if name not in dataset.modalities:
            raise ValueError(f"Config key `modalities`: {unknown('modality', name, dataset.modalities)}")
    if not names:
        raise ValueError("Config key `modalities` should name at least one modality. Found none.")
    if text.encoder is not None and "text" not in names:
        raise ValueError(
            f"`text.encoder = {text.encoder!r}` needs the modality text. Found `modalities = {list(names)}`."
        )
    return tuple(name for name in dataset.modalities if name in names)


def build_model(model: ModelConfig, text: TextConfig, dataset: Dataset, names: Sequence[str]) -> nn.Module:
    """The model, for this dataset's widths and outputs; its weights follow torch's global seed.

    Raises:
        ValueError: arguments that its constructor refuses, or sizes that nothing can hold.
    """
    encoder = None
    if text.encoder is not None and text.mode == "finetune":
        from equipoise.layers import TextEncoder

        encoder = TextEncoder(text.encoder)
    dims = {name: dataset.manifest.modalities[name].dim for name in names}
    outputs = dataset.manifest.labels.outputs
    arguments = {key: _of_chosen(value, dataset, names) for key, value in model.arguments.items()}
    try:
        if is_foreign(model.name):
            if encoder is not None:
                raise ValueError("a function gets features: leave `text.encoder` out, or set `text.mode` to frozen")
            return build_foreign(model.name, arguments, dims=dims, outputs=outputs)
        return MODELS[model.name](dims=dims, outputs=outputs, text_encoder=encoder, **arguments)
    except (ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        # Layers of torch refuse what they can't use in their own words, which name no key of the config.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{model.name} can't be built with `model = {model.arguments}`: {reason}") from error


def _of_chosen(value: Any, dataset: Dataset, names: Sequence[str]) -> Any:
    """A setting for each modality of the dataset serves a run on some of them too."""
    # Text may come from transcripts, and is then no modality of a dataset that is read without its text encoder.
    if isinstance(value, dict) and set(value) <= {*dataset.modalities, "text"}:
        return {name: part for name, part in value.items() if name in names}
    return value


def initial_model(config: RunConfig, dataset: Dataset, names: Sequence[str]) -> nn.Module:
    """The model as a run of this config starts with it: its weights are drawn from the config's seed.

    Built again later, with the same version of torch, it has the same weights.

    Raises:
        ValueError: as `build_model`.
    """
    seed_all(config.seed)
    model = build_model(config.model, config.text, dataset, names)
    if config.train.normalise:
        fit_normaliser(model, dataset.split("train"))
    return model


def fit_normaliser(model: nn.Module, train: Split) -> None:
    """Give the model's normaliser the training split's statistics.

    Raises:
        ValueError: the model has none.
    """
    normaliser = getattr(model, "normaliser", None)
    if normaliser is None:
        raise ValueError(f"{type(model).__name__} has no `normaliser`: set `train.normalise` to false, or give it one.")
    for name in normaliser.dims:
        mean, std = train.statistics(name)
        normaliser.fit(name, torch.from_numpy(mean), torch.from_numpy(std))


def build_balancer(balancers: Sequence[BalancerConfig], model: nn.Module, names: Sequence[str]) -> Balancer | None:
    """The balancer, several as a `Chain`, or None for the plain model.

    Raises:
        ValueError: arguments, a stage or an order that they refuse; fewer than two modalities.
    """
    if balancers and len(names) < 2:
        raise ValueError(
            f"A balancer needs at least two modalities. Found {', '.join(names)} alone: choose more by `modalities`, "
            "or set `balancer` to plain."
        )
    built = [BALANCERS[each.name](cast(Any, model).modalities(each.stage), **each.arguments) for each in balancers]
    if len(built) > 1:
        return Chain(*built)
    return built[0] if built else None


def own_learning_rates(config: RunConfig, model: nn.Module) -> list[tuple[nn.Module, float]]:
    """The text encoder, where there is one, and its learning rate."""
    encoder = getattr(model, "text_encoder", None)
    return [] if encoder is None else [(encoder, config.text.lr)]
