"""From a batch to clean, masked sequences: what every model does first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Listed

from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Normaliser, Sequence


def sequences(
    batch: Batch, dims: dict[str, int], normaliser: Normaliser, text: Callable[[Tensor, Tensor], Tensor] | None
) -> dict[str, Sequence]:
    """The batch's modalities as ``{m: Sequence [B, T, d]}`` with zeros as padding, in the model's order.

    Modalities that the model does not know are left out; those that the batch lacks are absent from the result.

    Raises:
        ValueError: no known modality, token ids without a text encoder (or the reverse), or another feature width.
    """
    found: dict[str, Sequence] = {}
    for name, dim in dims.items():
        if name not in batch.inputs:
            continue
        values, mask = batch.inputs[name], batch.masks[name]
        if name == "text" and text is not None:
            if values.is_floating_point():
                raise ValueError(
                    "Modality 'text' holds features, but the model has a `text_encoder`, which reads token ids. "
                    "Build the model without it, or give it a dataset with raw text."
                )
            found[name] = Sequence(text(values, mask), mask)
            continue
        if not values.is_floating_point():
            raise ValueError(f"Modality {name!r} holds token ids. Build the model with a `text_encoder` to read them.")
        if values.shape[-1] != dim:
            raise ValueError(f"Modality {name!r} should be {dim} wide, as in `dims`. Found {values.shape[-1]}.")
        found[name] = normaliser(name, values, mask)
    if not found:
        raise ValueError(f"The batch should hold at least one of {list(dims)}. Found {list(batch.inputs)}.")
    return found


def checked_dims(dims: dict[str, int], text: nn.Module | None) -> dict[str, int]:
    """The widths that the encoders read: ``dims``, with the text encoder's own width for text.

    Raises:
        ValueError: no modality, a width below 1, or a text encoder for a model without text.
    """
    if not dims:
        raise ValueError("Parameter `dims` should name at least one modality. Found none.")
    if text is not None and "text" not in dims:
        raise ValueError(f"Parameter `dims` should hold 'text' where `text_encoder` is given. Found {list(dims)}.")
    read = {name: _width(text) if name == "text" and text is not None else dim for name, dim in dims.items()}
    for name, dim in read.items():
        if dim < 1:
            raise ValueError(f"Parameter `dims` should hold positive widths. Found {name!r}: {dim}.")
    return read


def make_normaliser(dims: dict[str, int], text: nn.Module | None) -> Normaliser:
    """Statistics of every modality that is read as features: all but text where a text encoder reads it."""
    return Normaliser({name: dim for name, dim in dims.items() if name != "text" or text is None})


def check_stage(stage: str, stages: tuple[str, ...] = ("encoders",)) -> None:
    """Refuse a stage that the model does not name.

    Raises:
        ValueError: it is none of ``stages``.
    """
    if stage not in stages:
        known = " or ".join(f'"{name}"' for name in stages)
        raise ValueError(f"Parameter `stage` should be {known}. Found `stage = {stage!r}`.")


def with_text_encoder(parts: Mapping[str, Listed[nn.Module]], text: nn.Module | None) -> Modalities:
    """The groups to balance: ``parts`` by modality, text's with the text encoder."""
    also = {"text": [text]} if text is not None else {}
    return Modalities(**{name: [*modules, *also.get(name, [])] for name, modules in parts.items()})


def squeezed(logits: Tensor) -> Tensor:
    """``[B, 1]`` to ``[B]``; more outputs stay as they are."""
    return logits.squeeze(-1) if logits.shape[-1] == 1 else logits


def _width(text: nn.Module) -> int:
    dim = getattr(text, "dim", None)
    if not isinstance(dim, int):
        raise ValueError("Parameter `text_encoder` should have an integer attribute `dim`, the width of its vectors.")
    return dim
