"""AGS-SMoE: text attends to each other modality through sparse mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import CrossMoELayer, Sequence, TransformerEncoder, masked_mean
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output


class AGSSMoE(nn.Module):
    r"""AGS-SMoE, a transformer whose fusion routes tokens to sparse experts.

    From [Actual Cause Guided Adaptive Gradient Scaling for Balanced Multimodal Sentiment
    Analysis](https://doi.org/10.1145/3736415) (Chen et al., ACM TOMM 2025), section 4.2.

    .. math::

        F_t &= \mathrm{BERT}(I_t), \qquad F_m = \mathrm{LSTM}(\mathrm{Transformer}(I_m)), \; m \in \{a, v\} \\
        h^{i}_{tm} &= \mathrm{Attention}(Q = h^i_t,\; K = V = F_m), \qquad h^{i+1}_t = \mathrm{MoE}(h^i_{tm}),
        \; i = 1 \dots L \\
        \hat{y} &= \mathrm{MLP}([F_{ta}; F_{tv}])

    The gradient scaling itself is a balancer, ``AGS``, once on ``modalities("encoders")`` and once on
    ``modalities("fusion")``, the two in a ``Chain``.

    - :math:`F_t, F_a, F_v`: streams ``hidden`` wide. The paper's BERT is 768 wide and its streams 30: text passes one
      linear layer, from the ``text_encoder`` or from precomputed features, which are taken to know their order.
    - Branches: the *anchor* (text; the first of ``dims`` where the model has no text) paired with each other modality,
      L layers each, named by initials (``"ta"``, ``"tv"``), or by whole names where initials collide.
      :math:`F_{tm}` is the last layer's output, normalised, averaged over the real frames.
    - A model of the anchor alone has no branch: its averaged stream goes to the MLP.

    What the paper leaves open, chosen here: layers are pre-norm with residuals
    (:class:`equipoise.layers.CrossMoELayer`); the source :math:`F_m` is the same in every layer; a feed-forward network
    is ``4 * hidden`` wide; audio and vision get sinusoidal positions and one transformer block; the MLP has one hidden
    layer with ReLU. The released code feeds the transformer's output, not the LSTM's, into fusion:
    ``recurrent=False`` does so.

    A sample without a modality: nothing is read from it, and its branch carries the anchor alone. Without the *anchor*
    the branches ask no question and contribute zeros: the prediction is then the MLP's constant.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of the streams.
        heads: attention heads; divides ``hidden``.
        layers: L, layers of each branch. The paper says 9, the released default is 3.
        encoder_layers: transformer blocks in the encoders of audio and vision.
        experts: N.
        top_k: experts a token passes through.
        dropout: while training.
        recurrent: the LSTM on top of the transformers.
        ta_moe: False makes the "ta" branch a traditional transformer, one feed-forward network in the place of the
            experts (the ablation "w/o taMoE").
        tv_moe: the same for "tv"; both False is "w/o allMoE".
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together, such as ``ta_moe=False`` without a "ta" branch.
    """

    stages = ("encoders", "fusion")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 30,
        heads: int = 5,
        layers: int = 9,
        encoder_layers: int = 1,
        experts: int = 3,
        top_k: int = 2,
        dropout: float = 0.1,
        recurrent: bool = True,
        ta_moe: bool = True,
        tv_moe: bool = True,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layers < 1 or experts < 1:
            raise ValueError(
                "Parameters `layers` and `experts` should be positive. "
                f"Found `layers = {layers}`, `experts = {experts}`."
            )
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.hidden = hidden
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict()
        for name, dim in self.dims.items():
            self.encoders[name] = (
                _Project(dim, hidden)
                if name == "text"
                else TransformerEncoder(
                    dim, hidden, layers=encoder_layers, heads=heads, dropout=dropout, recurrent=recurrent
                )
            )
        self.anchor = "text" if "text" in self.dims else next(iter(self.dims))
        self.pairs = _branch_names(self.anchor, [name for name in self.dims if name != self.anchor])
        dense = [branch for branch, moe in (("ta", ta_moe), ("tv", tv_moe)) if not moe]
        for branch in dense:
            if branch not in self.pairs:
                raise ValueError(
                    f"Parameter `{branch}_moe` is False, but the model has no branch {branch!r}. "
                    f"Found {list(self.pairs)}."
                )
        self.branches = nn.ModuleDict(
            {
                branch: _Branch(
                    hidden,
                    layers=layers,
                    heads=heads,
                    experts=0 if branch in dense else experts,
                    top_k=top_k,
                    dropout=dropout,
                )
                for branch in self.pairs
            }
        )
        width = hidden * max(1, len(self.pairs))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: stream [B, T_m, hidden]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Streams of any of the modalities to a prediction; an absent one counts as a stream without real frames."""
        some = next(iter(encoded.values()))
        rows = len(some.mask)
        absent = Sequence(some.values.new_zeros(rows, 1, self.hidden), some.mask.new_zeros(rows, 1))
        streams = {name: encoded.get(name, absent) for name in self.dims}
        features = {name: masked_mean(stream.values, stream.mask) for name, stream in streams.items()}
        anchor = streams[self.anchor]
        fused: list[Tensor] = [self.branches[branch](anchor, streams[other]) for branch, other in self.pairs.items()]
        logits = self.mlp(torch.cat(fused or [features[self.anchor]], dim=-1))
        return Output(squeezed(logits), None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: ``"encoders"`` (stage 1, named as the modalities) or ``"fusion"`` (stage 2, the branches).

        The text encoder's parameters belong to text, with the layer that projects its vectors.
        """
        check_stage(stage, self.stages)
        if stage == "fusion" and len(self.pairs) < 2:
            raise ValueError(
                'Stage "fusion" balances two branches or more, so the model needs three modalities. '
                f"Found the modalities {', '.join(self.dims)}: balance the encoders alone."
            )
        if stage == "fusion":
            return Modalities(**{branch: self.branches[branch] for branch in self.pairs})
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Project(nn.Module):
    """One linear layer on each real frame."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, hidden)

    def forward(self, x: Sequence) -> Sequence:
        return Sequence(self.linear(x.values), x.mask).cleared()


class _Branch(nn.Module):
    """L Cross-MoE layers, a closing norm, and the mean over the anchor's real frames: ``[B, hidden]``."""

    def __init__(self, dim: int, *, layers: int, heads: int, experts: int, top_k: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossMoELayer(dim, heads=heads, experts=experts, top_k=top_k, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Sequence, source: Sequence) -> Tensor:
        for layer in self.layers:
            query = layer(query, source)
        return masked_mean(self.norm(query.values), query.mask)


def _branch_names(anchor: str, others: list[str]) -> dict[str, str]:
    """``{branch name: the other modality}``."""
    initials = [anchor[0] + other[0] for other in others]
    names = initials if len(set(initials)) == len(others) else [f"{anchor}_{other}" for other in others]
    return dict(zip(names, others, strict=True))
