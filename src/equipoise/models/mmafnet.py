"""MMAFNet: what is specific to a modality, what all share, and weights for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.functional import difference_loss, orthogonality_loss, similarity_loss
from equipoise.layers import CrossAttention, Sequence, TransformerEncoder, masked_mean
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output


class Parts(NamedTuple):
    """What MMAFNet knows of one modality; zeros where a sample lacks it.

    - ``specific``: ``[B, d]``, from its own encoder, in (-1, 1).
    - ``common``: ``[B, d]``, from the encoder of all, in (-1, 1).
    - ``shared``: ``[B, d]``, what its self-attention makes of the encoder of all.
    - ``present``: ``[B]`` bool.
    """

    specific: Tensor
    common: Tensor
    shared: Tensor
    present: Tensor


class MMAFNet(nn.Module):
    r"""MMAFNet, which parts each modality into what is specific to it and what it shares with the others.

    From [Feature Decoupling with Modality Modulation for Multimodal Sentiment
    Analysis](https://scholar.google.com/scholar?q=MMAFNet) (Wang et al.; the link is a search, for we know of no
    address of its own), Eqs. 1–3, 11 and 16–18.

    $$
    X_m^s = E_m(\mathrm{Conv}_m(x_m)), \quad X_m^c = E_c(\mathrm{Conv}_m(x_m)), \quad
    Z_m^c = \mathrm{SelfAttention}_m(X_m^c)
    $$

    $$
    Z^c = \operatorname{mean}_m Z_m^c, \quad
    g = \operatorname{softmax}\big(W_2 \tanh(W_1 [Z_1^s; \dots; Z_K^s; Z^c])\big), \quad
    \hat y = \mathrm{MLP}([g_1 Z_1^s; \dots; g_K Z_K^s; g_c Z^c])
    $$

    $$L = L_{task} + \lambda_1 L_{sim}(X^c) + \lambda_2 L_{diff}(X^c, X^s)$$

    The modulation is two balancers: ``SGM(model.modalities("encoders"))`` and ``IPR(model.modalities("shared"))``,
    alone or in a ``Chain``.

    - $E_m$, $E_c$: encoders of modality m alone and of all; the parameters of the first are what SGM modulates.
    - $Z_m^s$: $X_m^s$ averaged over the real frames, ``Output.features[m]``.
    - $Z_m^c$: averaged too, ``Output.extra["m_shared"]``; training hands it to balancers under that name, which is also
      m's name in ``modalities("shared")``. The parameters of its self-attention are what IPR resets.
    - $g$: the adaptive fusion module's weights, ``Output.extra["weights"]`` ``[B, K + 1]``.
    - $L_{sim}$, $L_{diff}$: :func:`equipoise.functional.similarity_loss` and ``difference_loss`` of the averaged
      $X_m^c$, $X_m^s$, over the samples that have all modalities.

    The paper prints $L_{diff}$ as a bare dot product, which falls without end as features turn opposite and long. Ours
    is MISA's orthogonality, divided by the squared number of samples: each of its terms lies in [0, 1] as that of
    normalised features would, and $\lambda_2$ does not depend on the batch. There is no released code.

    What the paper leaves open, chosen here: the common width; a convolution over ``kernel`` frames; encoders are one
    transformer block that ends in a tanh, since central moments need bounded features; $Z^c$ is a mean (over those
    that a sample has); attention as in $g$ above; the MLP has one hidden layer with ReLU.

    Any number of modalities. One that a sample lacks has zeros and weight 0, and the weights of the others sum to 1. A
    model of one modality has no pairs, and of the losses only its own part of $L_{diff}$.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: the common width.
        kernel: frames that the convolution sees, odd.
        layers: transformer blocks in each encoder.
        heads: attention heads; divides ``hidden``.
        dropout: inside encoders, on attention weights and inside the MLP, while training.
        adaptive: False puts 1 for every weight, plain concatenation (the ablation without AFM, Table 2).
        lambda_sim: $\lambda_1$.
        lambda_diff: $\lambda_2$.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together.
    """

    stages = ("encoders", "shared")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 128,
        kernel: int = 3,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        adaptive: bool = True,
        lambda_sim: float = 0.1,
        lambda_diff: float = 0.01,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"Parameter `kernel` should be odd and positive. Found `kernel = {kernel}`.")
        for name, weight in (("lambda_sim", lambda_sim), ("lambda_diff", lambda_diff)):
            if weight < 0:
                raise ValueError(f"Parameter `{name}` should be non-negative. Found `{name} = {weight}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.hidden = hidden
        self.lambda_sim = lambda_sim
        self.lambda_diff = lambda_diff
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)

        def encoder() -> TransformerEncoder:
            return TransformerEncoder(hidden, hidden, layers=layers, heads=heads, dropout=dropout)

        self.convolutions = nn.ModuleDict(
            {name: nn.Conv1d(dim, hidden, kernel, padding=kernel // 2) for name, dim in self.dims.items()}
        )
        self.encoders = nn.ModuleDict({name: encoder() for name in self.dims})
        self.common = encoder()
        self.attentions = nn.ModuleDict({name: CrossAttention(hidden, heads, dropout) for name in self.dims})
        count = len(self.dims) + 1
        self.scores = (
            nn.Sequential(nn.Linear(count * hidden, hidden), nn.Tanh(), nn.Linear(hidden, count)) if adaptive else None
        )
        self.mlp = nn.Sequential(
            nn.Linear(count * hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
        )

    def encode(self, batch: Batch) -> dict[str, Parts]:
        """``{m: Parts}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self._parts(name, sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Parts]) -> Output:
        """Parts of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        some = next(iter(encoded.values()))
        absent = Parts(*(torch.zeros_like(part) for part in some))
        parts = {name: encoded.get(name, absent) for name in self.dims}
        present = torch.stack([part.present for part in parts.values()], dim=1)
        total = torch.stack([part.shared for part in parts.values()]).sum(dim=0)
        mean = total / present.sum(dim=1, keepdim=True).clamp(min=1)
        tokens = torch.stack([*(part.specific for part in parts.values()), mean], dim=1)
        weights = self._weights(tokens, torch.cat([present, present.any(dim=1, keepdim=True)], dim=1))
        logits = self.mlp((weights.unsqueeze(-1) * tokens).flatten(1))
        extra = {"weights": weights}
        extra |= {f"{name}_shared": part.shared for name, part in parts.items()}
        extra |= {f"{name}_common": part.common for name, part in parts.items()}
        return Output(squeezed(logits), None, {name: part.specific for name, part in parts.items()}, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``{"similarity": [], "difference": []}``, weighted; without pairs of modalities the latter alone."""
        missing = batch.target.new_zeros(len(batch), 1, dtype=torch.bool)
        has = torch.stack([batch.masks.get(name, missing).any(dim=1) for name in self.dims])
        rows = has.all(dim=0).nonzero().squeeze(1)
        specific = {name: output.features[name][rows] for name in self.dims}
        common = {name: output.extra[f"{name}_common"][rows] for name in self.dims}
        if len(self.dims) == 1 or not len(rows):
            own = [orthogonality_loss(common[name], specific[name]) for name in self.dims]
            return {"difference": self.lambda_diff * torch.stack(own).sum() / max(len(rows), 1) ** 2}
        # Central moments are defined for features in [0, 1].
        similarity = similarity_loss({name: (1 + x) / 2 for name, x in common.items()})
        difference = difference_loss(common, specific) / len(rows) ** 2
        return {"similarity": self.lambda_sim * similarity, "difference": self.lambda_diff * difference}

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: ``"encoders"`` (for SGM, named as the modalities), or ``"shared"`` (for IPR).

        A modality's encoder is its private one with the convolution before it and, for text, the text encoder.
        ``"shared"`` are the self-attentions, named ``"text_shared"`` and so on, as in ``Output.extra``. The encoder of
        all belongs to nobody.
        """
        check_stage(stage, self.stages)
        if stage == "shared":
            return Modalities(**{f"{name}_shared": self.attentions[name] for name in self.dims})
        parts = {name: [self.convolutions[name], self.encoders[name]] for name in self.dims}
        return with_text_encoder(parts, self.text_encoder)

    def _parts(self, name: str, x: Sequence) -> Parts:
        low = Sequence(self.convolutions[name](x.values.transpose(1, 2)).transpose(1, 2), x.mask).cleared()
        specific = self.encoders[name](low).values.tanh()
        common = Sequence(self.common(low).values.tanh(), x.mask)
        shared = self.attentions[name](common, common)
        return Parts(
            masked_mean(specific, x.mask),
            masked_mean(common.values, x.mask),
            masked_mean(shared, x.mask),
            x.mask.any(dim=1),
        )

    def _weights(self, tokens: Tensor, known: Tensor) -> Tensor:
        """Weights ``[B, K + 1]`` of what is known; a sample of which nothing is known weighs zeros, all alike."""
        if self.scores is None:
            return torch.ones_like(tokens[..., 0])
        scores: Tensor = self.scores(tokens.flatten(1))
        allowed = known | ~known.any(dim=1, keepdim=True)
        return scores.masked_fill(~allowed, -torch.inf).softmax(dim=1)
