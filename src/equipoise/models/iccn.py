"""ICCN: outer products of text with each other modality, taught to correlate."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.functional import cca_loss
from equipoise.layers import Sequence, masked_last, masked_mean, run_packed
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output


class Encoded(NamedTuple):
    """One modality of each sample.

    - ``vector``: ``[B, d]``; zeros where a sample lacks the modality.
    - ``present``: ``[B]`` bool.
    """

    vector: Tensor
    present: Tensor


class ICCN(nn.Module):
    r"""Interaction Canonical Correlation Network: convolutions on outer products with text, taught to correlate.

    From [Learning Relationships between Text, Audio, and Video via Deep Canonical Correlation for Multimodal Language
    Analysis](https://arxiv.org/abs/1911.05544) (Sun et al., AAAI 2020). Read at second hand: the abstract, and
    sentences about it in other papers. They name the outer products ("text-based audio", "text-based video"), the
    canonical correlation between the two, and the concatenation of both with text before a classifier such as logistic
    regression. We know of no released code. Every layer and width is our choice.

    $$
    z_t = \tanh(W \operatorname{pool} x_t), \qquad z_m = \mathrm{LSTM}(\mathrm{relu}(\mathrm{Conv1D}(x_m)))^T, \;
    m \in \{a, v\}
    $$
    $$
    k_m = \mathrm{CNN}_m(z_t \otimes z_m), \qquad \hat y = W' [z_t; k_a; k_v], \qquad
    L = L_{task} + \lambda \, L_{CCA}(k_a, k_v)
    $$

    - pool: the first real token of a text encoder, [CLS]; the mean over real frames of text features.
    - $z_t \otimes z_m$: ``[B, d_t, d_m]``, an image with one channel.
    - CNN: twice a convolution with ReLU and maxima over 2 × 2 entries, then a linear layer.
    - $L_{CCA}$: :func:`equipoise.functional.cca_loss`, minus the sum of canonical correlations over the samples that
      have text, audio and vision. It needs a batch of more of them than $2 \cdot$ ``interaction``.

    As those sentences have it, the paper first learns the features by $L_{CCA}$ and then a classifier; here both losses
    are added.

    Any number of modalities: text is the pivot, or without text the first modality. Each other one has its outer
    product with the pivot, and each two of these correlate; with fewer than three modalities there is no such loss.

    A sample without modality m has $k_m = 0$. One without the pivot has $z_t = 0$ in the classifier, and ones for it in
    the outer products, whose rows then are $z_m$: zeros would silence all other modalities.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: $d_m$ of every modality but text.
        text_hidden: $d_t$.
        channels: of the first convolution over an outer product; the second has twice as many.
        kernel: odd, width of all convolutions.
        interaction: width of $k_m$.
        dropout: before the classifier, while training.
        lambda_cca: $\lambda$; 0 leaves the loss out.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a size below 1, an even ``kernel``, or a negative ``lambda_cca``.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 32,
        text_hidden: int = 64,
        channels: int = 8,
        kernel: int = 3,
        interaction: int = 8,
        dropout: float = 0.2,
        lambda_cca: float = 0.1,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sizes = {"hidden": hidden, "text_hidden": text_hidden, "channels": channels, "interaction": interaction}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"Parameter `{name}` should be at least 1. Found `{name} = {size}`.")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"Parameter `kernel` should be positive and odd. Found `kernel = {kernel}`.")
        if lambda_cca < 0:
            raise ValueError(f"Parameter `lambda_cca` should be non-negative. Found `lambda_cca = {lambda_cca}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.lambda_cca = lambda_cca
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {
                name: _Text(dim, text_hidden, first=text_encoder is not None)
                if name == "text"
                else _Stream(dim, hidden, kernel)
                for name, dim in self.dims.items()
            }
        )
        self.pivot = "text" if "text" in self.dims else next(iter(self.dims))
        self.widths = {name: text_hidden if name == "text" else hidden for name in self.dims}
        width = self.widths[self.pivot]
        self.interactions = nn.ModuleDict(
            {
                name: _Interaction(width, self.widths[name], channels, kernel, interaction)
                for name in self.dims
                if name != self.pivot
            }
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width + interaction * len(self.interactions), outputs)

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """``{m: Encoded}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Encoded]) -> Output:
        """Any of the modalities to a prediction; an absent one counts as one that every sample lacks.

        ``Output.features`` holds $z_m$, ``Output.extra`` $k_m$ as ``interaction/<m>``.
        """
        some = next(iter(encoded.values()))
        rows = len(some.present)
        parts = {
            name: encoded[name]
            if name in encoded
            else Encoded(some.vector.new_zeros(rows, width), torch.zeros_like(some.present))
            for name, width in self.widths.items()
        }
        pivot = parts[self.pivot]
        reference = pivot.vector.masked_fill(~pivot.present.unsqueeze(1), 1)
        found: dict[str, Tensor] = {}
        for name, interaction in self.interactions.items():
            image = reference.unsqueeze(2) * parts[name].vector.unsqueeze(1)
            found[name] = interaction(image).masked_fill(~parts[name].present.unsqueeze(1), 0)
        logits = squeezed(self.head(self.drop(torch.cat([pivot.vector, *found.values()], dim=1))))
        features = {name: part.vector for name, part in parts.items()}
        return Output(logits, None, features, {f"interaction/{name}": x for name, x in found.items()})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``cca/<m>-<n>`` of each two modalities that the batch holds beside the pivot, weighted by $\\lambda$.

        0 where fewer than two samples have both and the pivot.
        """
        if not self.lambda_cca or self.pivot not in batch.masks:
            return {}
        present = {name: mask.any(dim=1) for name, mask in batch.masks.items()}
        found: dict[str, Tensor] = {}
        for one, other in combinations([name for name in self.interactions if name in present], 2):
            shared = present[self.pivot] & present[one] & present[other]
            x, y = (output.extra[f"interaction/{name}"][shared] for name in (one, other))
            found[f"cca/{one}-{other}"] = self.lambda_cca * cca_loss(x, y)
        return found

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder, up to $z_m$; text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Text(nn.Module):
    """One vector of a text: its first token or its mean, through a linear layer and tanh."""

    def __init__(self, dim: int, hidden: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.linear = nn.Linear(dim, hidden)

    def forward(self, x: Sequence) -> Encoded:
        present = x.mask.any(dim=1)
        # The first real one: [CLS] wherever padding lies.
        at = x.mask.to(torch.uint8).argmax(dim=1)
        pooled = x.values[torch.arange(len(at), device=at.device), at] if self.first else masked_mean(x.values, x.mask)
        return Encoded(self.linear(pooled).tanh().masked_fill(~present.unsqueeze(1), 0), present)


class _Stream(nn.Module):
    """A convolution over time, then the last output of an LSTM."""

    def __init__(self, dim: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, hidden, kernel, padding=kernel // 2)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)

    def forward(self, x: Sequence) -> Encoded:
        values = self.conv(x.cleared().values.transpose(1, 2)).relu().transpose(1, 2)
        states = run_packed(self.lstm, Sequence(values, x.mask))
        return Encoded(masked_last(*states), x.mask.any(dim=1))


class _Interaction(nn.Module):
    """The CNN on an outer product, ``[B, d, d']`` to ``[B, out]``."""

    def __init__(self, height: int, width: int, channels: int, kernel: int, out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, channels), (channels, 2 * channels)):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        entries = 2 * channels * -(-height // 4) * -(-width // 4)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(entries, out))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.layers(image.unsqueeze(1))
        return out
