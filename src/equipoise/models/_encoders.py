"""One encoder a modality, each of a kind by name: what late fusion, early fusion and FiLM begin with."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal, cast

from torch import nn

from equipoise.core import Modalities
from equipoise.layers import GRUEncoder, MeanEncoder, ResNetEncoder, TransformerEncoder

EncoderKind = Literal["gru", "transformer", "mean", "pool", "resnet18"]


def build_encoders(
    dims: Mapping[str, int],
    encoder: EncoderKind | Mapping[str, EncoderKind],
    *,
    hidden: int,
    layers: int,
    heads: int,
    dropout: float,
    text_encoder: nn.Module | None,
    image_shape: Mapping[str, tuple[int, int, int]] | None,
    image_weights: Mapping[str, str] | None,
) -> nn.ModuleDict:
    """``{m: encoder}``, each a module from a `Sequence` to a `Sequence`, as :class:`LateFusion` describes its kinds.

    Raises:
        ValueError: an unknown kind, or images where there are none.
    """
    kinds = _kinds(encoder, dims, pooled_text=text_encoder is not None)
    shapes, weights = image_shape or {}, image_weights or {}
    _check_images(kinds, dims, shapes, weights)

    def build(name: str, dim: int) -> nn.Module:
        kind = kinds[name]
        if kind == "gru":
            return GRUEncoder(dim, hidden, layers=layers, dropout=dropout)
        if kind == "transformer":
            return TransformerEncoder(dim, hidden, layers=layers, heads=heads, dropout=dropout)
        if kind == "mean":
            return MeanEncoder(dim, hidden, layers=layers, dropout=dropout)
        if kind == "resnet18":
            return ResNetEncoder(shapes[name], weights=weights.get(name))
        return nn.Identity()

    return nn.ModuleDict({name: build(name, dim) for name, dim in dims.items()})


def encoded_widths(encoders: nn.ModuleDict, dims: Mapping[str, int]) -> dict[str, int]:
    """``{m: d}``, how wide each encoder's output is."""
    return {
        name: dim if isinstance(encoders[name], nn.Identity) else cast(int, encoders[name].dim)
        for name, dim in dims.items()
    }


def encoder_groups(encoders: nn.ModuleDict, heads: nn.ModuleDict, text_encoder: nn.Module | None) -> Modalities:
    """Each modality's encoder, text's with the text encoder; its head where the encoder has nothing to train."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, encoder in encoders.items():
        own = list(encoder.parameters())
        if name == "text" and text_encoder is not None:
            own += text_encoder.parameters()
        groups[name] = own if any(p.requires_grad for p in own) else list(heads[name].parameters())
    return Modalities(**groups)


def _kinds(
    encoder: EncoderKind | Mapping[str, EncoderKind], dims: Mapping[str, int], *, pooled_text: bool
) -> dict[str, EncoderKind]:
    if isinstance(encoder, Mapping):
        if set(encoder) != set(dims):
            raise ValueError(f"Parameter `encoder` should name each of {list(dims)}. Found {list(encoder)}.")
        kinds = dict(encoder)
    else:
        kinds = dict.fromkeys(dims, encoder)
        if pooled_text:
            kinds["text"] = "pool"
    for kind in kinds.values():
        if kind not in ("gru", "transformer", "mean", "pool", "resnet18"):
            raise ValueError(
                'Parameter `encoder` should be "gru", "transformer", "mean", "pool" or "resnet18". '
                f"Found `encoder = {kind!r}`."
            )
    return kinds


def _check_images(
    kinds: Mapping[str, EncoderKind],
    dims: Mapping[str, int],
    shapes: Mapping[str, tuple[int, int, int]],
    weights: Mapping[str, str],
) -> None:
    read = [name for name, kind in kinds.items() if kind == "resnet18"]
    if set(shapes) != set(read):
        raise ValueError(
            f'Parameter `image_shape` should name the modalities whose encoder is "resnet18", {read}. '
            f"Found {list(shapes)}."
        )
    if not set(weights) <= set(read):
        raise ValueError(
            f'Parameter `image_weights` should name modalities whose encoder is "resnet18", {read}. '
            f"Found {list(weights)}."
        )
    for name in read:
        if prod(shapes[name]) != dims[name]:
            raise ValueError(
                f"Parameter `image_shape` should have the product {dims[name]} for {name!r}, the width of a frame. "
                f"Found {list(shapes[name])}."
            )
