"""Self-MM: unimodal tasks whose labels the model makes while it trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Sequence
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._subnetworks import LastState, with_zeros
from equipoise.models._unimodal_heads import Head, Widths, unimodal_losses, widths_by_modality
from equipoise.models._unimodal_labels import UnimodalLabels
from equipoise.models.output import Output

# Of the released code for MOSI, but for text features, which it does not have.
_HIDDEN = {"text": 128, "audio": 32}
_WIDTH = {"text": 64, "audio": 16}
_HEAD = {"text": 64, "audio": 16}


class SelfMM(nn.Module):
    r"""Self-MM, whose unimodal heads learn from labels of their own, made from where features lie between two centres.

    From [Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal Sentiment
    Analysis](https://arxiv.org/abs/2102.04830) (Yu et al., AAAI 2021); read in its released code and at second hand.

    $$
    \begin{aligned}
    F_t &= \mathrm{BERT}(x_t)_{\mathrm{CLS}}, \qquad F_m = W_m \mathrm{LSTM}(x_m), \; m \in \{a, v\} \\
    F_s^* &= \mathrm{relu}(W_s^1 F_s), \qquad \hat y_s = W_s^3 \mathrm{relu}(W_s^2 F_s^*), \qquad
    s \in \{t, a, v\} \\
    F_m^* &= \mathrm{relu}(W^1 [F_t; F_a; F_v]), \qquad \hat y = W^3 \mathrm{relu}(W^2 F_m^*)
    \end{aligned}
    $$

    $$
    L = |\hat y - y_m| + \sum_s \tanh(|y_s - y_m|) \, |\hat y_s - y_s|
    $$

    The task's loss is the first term; `losses` are the others. The labels $y_s$ start at the target $y_m$. From the
    second view of a sample on (i = 2, 3, ...), after each of its losses,

    $$
    \alpha = \frac{\lVert F^* - C^n \rVert - \lVert F^* - C^p \rVert}{\lVert F^* - C^p \rVert + \epsilon}, \qquad
    y_s^{(i)} = \tfrac{i - 1}{i + 1} y_s^{(i - 1)} + \tfrac{2}{i + 1} \Big[ \tfrac{\alpha_s}{2 \alpha_m} y_m
    + \tfrac{1}{2} (y_m + \alpha_s - \alpha_m) \Big]_{-H}^{H}
    $$

    - $C^p, C^n$: the means of $F_s^*$, as last seen, over all samples with a positive, and with a negative, label
      $y_s$; for $\alpha_m$ those of $F_m^*$ by $y_m$.
    - $i$: how often the sample was seen with the modality, which is the number of the epoch. A label therefore first
      moves in the second epoch, and the unimodal losses are 0 until then.
    - $H$: ``bound``.

    What a label is made from is in the buffers of ``labels``, by ``Batch.index``: a checkpoint holds it, a resumed run
    goes on with it, and all ranks have the same. It is written by `losses` of a model in training mode, which has to be
    called once a step, and by nothing else. ``model.labels.read(index, target)`` gives the labels;
    ``model.labels.forget()`` empties them before training on other data.

    Targets need a sign, with 0 for neutral: without positive *and* negative ones labels stay at the target. Several
    targets have centres each. Classes have no sign: there $y_s$ is the class itself, and `losses` are the plain
    cross-entropies with weight 1. The released code refuses classes.

    Where released codes differ: the first counts labels of 0 as positive, a later one has a switch; here they count to
    neither. Chosen here: one dropout rate, which text's head has too; a label that would be 0/0 stays.

    Any number of modalities. One that a sample lacks has zeros for $F_s$, no loss, no part in centres, and its label
    stays. Text that is not token ids of an encoder being fine-tuned passes an LSTM as the others do.

    Args:
        dims: ``{m: d_m}``; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of the LSTMs, for all or by modality. By default, as in the released code for MOSI, 32 for audio
            and 64 for others; 128 for text.
        width: of $F_s$ behind an LSTM: 16 for audio, 32 for others; 64 for text.
        head_hidden: width of $F_s^*$: 64 for text, 16 for audio, 32 for others.
        fusion_hidden: width of $F_m^*$.
        dropout: before the first layer of each head, while training.
        bound: $H$; 3 in the released code for MOSI and MOSEI, 1 for SIMS. None for the largest absolute target seen.
        from_view: the view at which labels first move.
        text_encoder: reads ``text`` as token ids, such as :class:`equipoise.layers.TextEncoder`. Fine-tuned, its first
            vector is $F_t$; frozen, its vectors are features.

    Raises:
        ValueError: a bound that is not positive, a view before the second, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: Widths = None,
        width: Widths = None,
        head_hidden: Widths = None,
        fusion_hidden: int = 128,
        dropout: float = 0.1,
        bound: float | None = None,
        from_view: int = 2,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if bound is not None and bound <= 0:
            raise ValueError(f"Parameter `bound` should be positive, or None. Found `bound = {bound}`.")
        if from_view < 2:
            raise ValueError(
                f"Parameter `from_view` should be at least 2: labels are made from features seen before. "
                f"Found `from_view = {from_view}`."
            )
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        # The vector of a fine-tuned [CLS] is a summary already; any other text is a sequence of features.
        tuned = text_encoder is not None and any(p.requires_grad for p in text_encoder.parameters())
        lstms = {name: dim for name, dim in self.dims.items() if name != "text" or not tuned}
        hiddens = widths_by_modality("hidden", hidden, self.dims, _HIDDEN, 64)
        heads = widths_by_modality("head_hidden", head_hidden, self.dims, _HEAD, 32)
        widths = widths_by_modality("width", width, self.dims, _WIDTH, 32)
        self.widths = {name: widths[name] if name in lstms else dim for name, dim in self.dims.items()}
        self.encoders = nn.ModuleDict(
            {
                name: LastState(dim, hiddens[name], self.widths[name], layers=1, relu=False, dropout=0.0)
                for name, dim in lstms.items()
            }
        )
        self.fusion = Head(sum(self.widths.values()), fusion_hidden, outputs, dropout)
        self.heads = nn.ModuleDict({m: Head(self.widths[m], heads[m], outputs, dropout) for m in self.dims})
        self.labels = UnimodalLabels(
            {m: heads[m] for m in self.dims}, joint=fusion_hidden, outputs=outputs, bound=bound, from_view=from_view
        )

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: F_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self._encode(name, sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; an absent one counts as zeros."""
        features = with_zeros(encoded, self.widths)
        joint, logits = self.fusion(torch.cat(list(features.values()), dim=1))
        extra, unimodal = {"joint": joint}, {}
        for name, x in features.items():
            extra[f"{name}_hidden"], said = self.heads[name](x)
            unimodal[name] = squeezed(said)
        return Output(squeezed(logits), unimodal, features, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``{"unimodal/m": []}`` for the batch's modalities, means over it; in training mode then moves the labels."""
        return unimodal_losses(output, batch, self.labels, training=self.training)

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's LSTM; for text that is fine-tuned, the text encoder."""
        check_stage(stage)
        parts = {m: [self.encoders[m]] if m in self.encoders else [] for m in self.dims}
        return with_text_encoder(parts, self.text_encoder)

    def _encode(self, name: str, x: Sequence) -> Tensor:
        if name in self.encoders:
            last: Tensor = self.encoders[name](x).values[:, 0]
            return last
        return x.values[:, 0].masked_fill(~x.mask.any(dim=1, keepdim=True), 0)
