"""MFN: LSTMs side by side, and a memory of what changes in several of them at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from equipoise.core import Batch, Modalities
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._mfn import MemoryFusion, States, ViewLSTM, by_modality, positive, resampled
from equipoise.models.output import Output

_PUBLISHED = {"text": 88, "audio": 48, "vision": 16}


class MFN(nn.Module):
    r"""Memory Fusion Network: an LSTM a modality, and a gated memory that attends to how their cells change.

    From [Memory Fusion Network for Multi-view Sequential Learning](https://arxiv.org/abs/1802.00927) (Zadeh et al.,
    AAAI 2018). Read at second hand: the abstract, a public summary with the equations, and the released code.

    $$
    h_m^t, c_m^t = \mathrm{LSTM}_m(x_m^t), \qquad c^{[t-1, t]} = [c_1^{t-1}; \dots; c_M^{t-1}; c_1^t; \dots; c_M^t]
    $$
    $$
    \hat c^{[t-1, t]} = \mathrm{softmax}\big(D_a(c^{[t-1, t]})\big) \odot c^{[t-1, t]}, \qquad
    \hat u^t = \tanh D_u(\hat c^{[t-1, t]})
    $$
    $$
    \gamma_k^t = \mathrm{sigmoid}\, D_{\gamma_k}([\hat c^{[t-1, t]}; u^{t-1}]), \qquad
    u^t = \gamma_1^t \odot u^{t-1} + \gamma_2^t \odot \hat u^t
    $$
    $$
    \hat y = \mathrm{MLP}([h_1^T; \dots; h_M^T; u^T])
    $$

    - $D$: a network with one hidden layer, ReLU and dropout; so is the MLP. $u^0$ and $c^0$ are zeros.
    - The softmax is over the entries of $c^{[t-1, t]}$, 2 h of them: the delta-memory attention.
    - $\gamma_1$ retains, $\gamma_2$ updates: the multi-view gated memory.

    The summary lets $D_\gamma$ read $\hat c$ alone; the released code reads $u^{t-1}$ as well, and so do we.

    MFN wants modalities aligned to words, one frame of each at every step. Here they need not be: a stream of more than
    ``steps`` frames is first averaged over ``steps`` equal windows, as word alignment averages over words. Then each
    LSTM reads its own steps, and the memory ticks as often as the sample's longest stream has steps; a shorter one
    shows it the cell that it has reached by then, in proportion. Streams of equal lengths of at most ``steps`` frames
    pass unchanged: that is the paper's model. The released code ends at the last *padded* frame, ours at the last real
    one.

    Any number of modalities. One that a sample lacks has cells and outputs of zeros.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of every LSTM, or ``{m: width}``; None for the released code's best by absolute error on MOSI:
            text 88, audio 48, vision 16, any other 48. So are the other defaults, but for dropout.
        memory: width of u.
        attention_hidden: hidden units of $D_a$.
        proposal_hidden: hidden units of $D_u$.
        retain_hidden: hidden units of $D_{\gamma_1}$.
        update_hidden: hidden units of $D_{\gamma_2}$.
        output_hidden: hidden units of the MLP.
        dropout: in every $D$, while training; the code searches 0 to 0.7 for each (0, 0.2, 0, 0.2 at its best).
        output_dropout: in the MLP, while training.
        delta: False for the ablation in which attention sees $c^t$ alone.
        steps: longest stream that an LSTM reads; the released code cuts MOSI after 20 words.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a size below 1, or a modality without a width.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int | Mapping[str, int] | None = None,
        memory: int = 128,
        attention_hidden: int = 128,
        proposal_hidden: int = 64,
        retain_hidden: int = 256,
        update_hidden: int = 64,
        output_hidden: int = 64,
        dropout: float = 0.2,
        output_dropout: float = 0.5,
        delta: bool = True,
        steps: int = 50,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dims = checked_dims(dict(dims), text_encoder)
        self.widths = by_modality("hidden", hidden, self.dims, _PUBLISHED, 48)
        positive(
            hidden=min(self.widths.values()),
            memory=memory,
            attention_hidden=attention_hidden,
            proposal_hidden=proposal_hidden,
            retain_hidden=retain_hidden,
            update_hidden=update_hidden,
            output_hidden=output_hidden,
            steps=steps,
        )
        self.outputs = outputs
        self.steps = steps
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict({name: ViewLSTM(dim, self.widths[name]) for name, dim in self.dims.items()})
        self.fusion = MemoryFusion(
            self.widths,
            memory=memory,
            attention_hidden=attention_hidden,
            proposal_hidden=proposal_hidden,
            retain_hidden=retain_hidden,
            update_hidden=update_hidden,
            dropout=dropout,
            delta=delta,
        )
        self.mlp = nn.Sequential(
            nn.Linear(self.fusion.dim, output_hidden),
            nn.ReLU(),
            nn.Dropout(output_dropout),
            nn.Linear(output_hidden, outputs),
        )

    def encode(self, batch: Batch) -> dict[str, States]:
        """Each modality's LSTM, for those that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](resampled(sequence, self.steps)) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, States]) -> Output:
        """Any of the modalities to a prediction; an absent one counts as one that every sample lacks.

        ``Output.features`` holds the last outputs $h_m^T$, ``Output.extra["memory"]`` is $u^T$, ``[B, memory]``.
        """
        features, memory = self.fusion(encoded)
        logits = squeezed(self.mlp(torch.cat([*features.values(), memory], dim=1)))
        return Output(logits, None, features, {"memory": memory})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's LSTM, text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)
