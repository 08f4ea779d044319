"""MISA: what is specific to a modality and what all share, in two subspaces of one width."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.functional import cmd, orthogonality_loss, reconstruction_loss
from equipoise.layers import Sequence
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._utterance import UtteranceEncoder
from equipoise.models.output import Output


class Subspaces(NamedTuple):
    """One modality as MISA encodes it; zeros where a sample lacks it.

    - ``projected``: ``[B, d]``, the utterance before it is parted.
    - ``private``: ``[B, d]``, in (0, 1), from the modality's own encoder.
    - ``shared``: ``[B, d]``, in (0, 1), from the encoder of all.
    - ``present``: ``[B]`` bool.
    """

    projected: Tensor
    private: Tensor
    shared: Tensor
    present: Tensor


class MISA(nn.Module):
    r"""MISA, which parts each modality into a private and a shared vector and fuses all of them by self-attention.

    From [MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment
    Analysis](https://arxiv.org/abs/2005.03545) (Hazarika et al., ACM MM 2020); read in its released code and at second
    hand.

    $$
    \begin{aligned}
    u_t &= \operatorname{mean} \mathrm{BERT}(x_t), \qquad
    u_m = [\mathrm{LSTM}_1(x_m); \mathrm{LSTM}_2(\mathrm{LN}(\mathrm{LSTM}_1(x_m)))], \; m \in \{a, v\} \\
    h_m &= \mathrm{LN}(\mathrm{relu}(W_m u_m)), \qquad
    h_m^p = \mathrm{sigmoid}(E_m h_m), \qquad
    h_m^c = \mathrm{sigmoid}(E_c h_m) \\
    \hat y &= \mathrm{MLP}(\mathrm{Transformer}([h_t^p, h_a^p, h_v^p, h_t^c, h_a^c, h_v^c])), \qquad
    \hat h_m = D_m(h_m^p + h_m^c)
    \end{aligned}
    $$

    $$
    L = L_{task} + \alpha \operatorname*{mean}_{m < n} \mathrm{CMD}(h_m^c, h_n^c)
    + \frac{\beta}{d^2} \Big( \sum_m L_\perp(h_m^c, h_m^p) + \sum_{m < n} L_\perp(h_m^p, h_n^p) \Big)
    + \gamma \operatorname*{mean}_m \tfrac{1}{d} \lVert h_m - \hat h_m \rVert^2
    $$

    - $\mathrm{LSTM}_1, \mathrm{LSTM}_2$: bidirectional, as wide as their modality; $u_m$ holds the last state of each
      direction and layer, ``4 * d_m`` wide.
    - $E_m$, $E_c$: a linear layer of modality m alone, and one of all. ``Output.features[m]`` is $h_m^p$;
      ``Output.extra["m_shared"]`` is $h_m^c$, ``Output.extra["m_projected"]`` $h_m$.
    - $\mathrm{Transformer}$: one post-norm layer over the vectors, without positions; the MLP reads all that come out.
    - $\mathrm{CMD}, L_\perp$: :func:`equipoise.functional.cmd` with five moments and
      :func:`equipoise.functional.orthogonality_loss`, over the samples that have both modalities.
    - ``adversarial=True``: in place of CMD a discriminator guesses the modality of $h_m^c$, and a reversed gradient
      teaches the encoders to deceive it (a switch of the released code).

    Taken from the released code: every width, dropout, activation and weight. Left out of it: a layer norm for text and
    a discriminator of private and shared, which nothing reads when text comes from BERT. Its orthogonality gives the
    norms of rows no gradient, ours does.

    Any number of modalities. One that a sample lacks is left out of attention and losses; its vectors are zeros. A
    model of one modality has no pairs: no similarity loss, and of the difference its own part.

    Args:
        dims: ``{m: d_m}``; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: d.
        heads: attention heads; divides ``hidden``.
        feed_forward: hidden units of the transformer layer.
        dropout: inside the MLP and the discriminator, while training.
        transformer_dropout: inside the transformer layer, while training.
        recurrent_text: text too passes the LSTMs, as word vectors do in the released code; else its real frames are
            averaged. At BERT's width of 768 the LSTMs have 24 million parameters.
        adversarial: a discriminator in place of CMD.
        lambda_sim: α; 0 leaves the loss out, and the discriminator.
        lambda_diff: β; 0 leaves the loss out.
        lambda_recon: γ; 0 leaves the loss out, and the decoders $D_m$.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a negative weight, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 128,
        heads: int = 2,
        feed_forward: int = 2048,
        dropout: float = 0.5,
        transformer_dropout: float = 0.1,
        recurrent_text: bool = False,
        adversarial: bool = False,
        lambda_sim: float = 1.0,
        lambda_diff: float = 0.3,
        lambda_recon: float = 1.0,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("sim", lambda_sim), ("diff", lambda_diff), ("recon", lambda_recon)):
            if weight < 0:
                raise ValueError(f"Parameter `lambda_{name}` should be non-negative. Found `lambda_{name} = {weight}`.")
        if heads < 1 or hidden % heads:
            raise ValueError(f"Parameter `heads` should divide `hidden = {hidden}`. Found `heads = {heads}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.hidden = hidden
        self.lambda_sim = lambda_sim
        self.lambda_diff = lambda_diff
        self.lambda_recon = lambda_recon
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        count = len(self.dims)
        self.encoders = nn.ModuleDict(
            {
                name: UtteranceEncoder(dim, hidden, recurrent=name != "text" or recurrent_text)
                for name, dim in self.dims.items()
            }
        )
        self.private = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in self.dims})
        self.shared = nn.Linear(hidden, hidden)
        self.transformer = nn.TransformerEncoderLayer(
            hidden, heads, feed_forward, transformer_dropout, batch_first=True
        )
        self.mlp = nn.Sequential(
            nn.Linear(2 * count * hidden, count * hidden),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(count * hidden, outputs),
        )
        self.decoders = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in self.dims if lambda_recon})
        self.discriminator: nn.Sequential | None = None
        if adversarial and lambda_sim and count > 1:
            self.discriminator = nn.Sequential(
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, count)
            )

    def encode(self, batch: Batch) -> dict[str, Subspaces]:
        """``{m: Subspaces}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self._parts(name, sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Subspaces]) -> Output:
        """Vectors of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        some = next(iter(encoded.values()))
        absent = Subspaces(*(torch.zeros_like(part) for part in some))
        parts = {name: encoded.get(name, absent) for name in self.dims}
        vectors = [part.private for part in parts.values()] + [part.shared for part in parts.values()]
        seen = torch.stack([part.present for part in parts.values()] * 2, dim=1)
        # A softmax over nothing is 0/0: a sample without any modality attends to its zeros, cleared afterwards.
        hidden = ~seen & seen.any(dim=1, keepdim=True)
        fused = self.transformer(torch.stack(vectors, dim=1), src_key_padding_mask=hidden)
        logits = self.mlp(fused.masked_fill(~seen.unsqueeze(-1), 0).flatten(1))
        extra = {f"{name}_shared": part.shared for name, part in parts.items()}
        extra |= {f"{name}_projected": part.projected for name, part in parts.items()}
        return Output(squeezed(logits), None, {name: part.private for name, part in parts.items()}, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of ``{"similarity": [], "difference": [], "reconstruction": []}`` that have a weight and samples."""
        present = {name: batch.masks[name].any(dim=1) for name in self.dims if name in batch.masks}
        present = {name: rows for name, rows in present.items() if bool(rows.any())}
        private = output.features
        shared = {name: output.extra[f"{name}_shared"] for name in present}
        both = [(m, n, present[m] & present[n]) for m, n in combinations(present, 2)]
        both = [(m, n, rows) for m, n, rows in both if bool(rows.any())]
        found: dict[str, Tensor] = {}
        if self.discriminator is not None and present:
            found["similarity"] = self.lambda_sim * self._deception(shared, present)
        elif self.lambda_sim and both:
            pairs = [cmd(shared[m][rows], shared[n][rows]) for m, n, rows in both]
            found["similarity"] = self.lambda_sim * torch.stack(pairs).mean()
        if self.lambda_diff and present:
            terms = [orthogonality_loss(shared[m][rows], private[m][rows]) for m, rows in present.items()]
            terms += [orthogonality_loss(private[m][rows], private[n][rows]) for m, n, rows in both]
            found["difference"] = self.lambda_diff / self.hidden**2 * torch.stack(terms).sum()
        if self.decoders and present:
            errors = []
            for name, rows in present.items():
                parts = (private[name] + shared[name]).to(self.shared.weight.dtype)
                # No gradient is stopped at the original, as in the released code: its layer norm keeps it from zero.
                errors.append(reconstruction_loss(self.decoders[name](parts), output.extra[f"{name}_projected"], rows))
            found["reconstruction"] = 2 * self.lambda_recon * torch.stack(errors).mean()
        return found

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: what a modality passes up to its private vector; text's with the text encoder.

        The encoder of all, $E_c$, belongs to nobody.
        """
        check_stage(stage)
        parts = {name: [self.encoders[name], self.private[name]] for name in self.dims}
        return with_text_encoder(parts, self.text_encoder)

    def _parts(self, name: str, x: Sequence) -> Subspaces:
        projected = self.encoders[name](x)
        present = x.mask.any(dim=1)
        found = (projected, self.private[name](projected).sigmoid(), self.shared(projected).sigmoid())
        projected, private, shared = (part.masked_fill(~present.unsqueeze(-1), 0) for part in found)
        return Subspaces(projected, private, shared, present)

    def _deception(self, shared: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The discriminator's cross-entropy; what reaches the encoders is minus its gradient."""
        assert self.discriminator is not None
        vectors = torch.cat([shared[name][rows] for name, rows in present.items()]).to(self.shared.weight.dtype)
        labels = [
            torch.full_like(present[m][present[m]], i, dtype=torch.long)
            for i, m in enumerate(self.dims)
            if m in present
        ]
        reversed_ = 2 * vectors.detach() - vectors
        return F.cross_entropy(self.discriminator(reversed_), torch.cat(labels))
