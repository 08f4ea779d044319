"""MAG-BERT: audio and vision shift the words that BERT reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import AdaptationGate, Sequence, TransformerEncoder, masked_mean
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed
from equipoise.models.output import Output


class MAGBERT(nn.Module):
    r"""MAG-BERT, whose gate inside the text encoder lets the other modalities shift each word before BERT's layers.

    From [Integrating Multimodal Information in Large Pretrained Transformers](https://arxiv.org/abs/1908.05787)
    (Rahman et al., ACL 2020); read in its released code and at second hand.

    $$
    Z = \mathrm{Embedding}(I_t), \qquad
    \bar Z = \mathrm{MAG}(Z, A, V), \qquad
    F = \mathrm{Layers}(\bar Z), \qquad
    \hat y = W \tanh(W_p F_{\mathrm{CLS}} + b_p) + b
    $$

    - $\mathrm{MAG}$: :class:`equipoise.layers.AdaptationGate`, after the embedding layer.
    - $A, V$: audio and vision at each token. The paper's data are aligned to words, whose vector the released code
      gives to each piece of the word, and zeros to [CLS] and [SEP]. Here no timestamps are asked for: the real frames
      are divided over all real tokens in proportion, [CLS] and [SEP] included (:func:`equipoise.layers.aligned`).
      Where frames and tokens are as many, frame i goes to token i.
    - $W_p$: the pooling head. The released code has BERT's pretrained one; here it starts at random.

    The gate sits inside a text encoder that splits into ``embed`` and ``contextualise``, as
    :class:`equipoise.layers.TextEncoder` does. For text *features*, or an encoder that does not split, a linear layer
    ``hidden`` wide stands in for the embedding, a small transformer with positions for BERT's layers, and the mean over
    real frames for [CLS].

    Modalities: any number, each a term of the gate's sum. The stream that is shifted is text, the first of ``dims`` in
    a model without it. A sample without audio or vision is shifted by the others alone; without the stream there is
    nothing to shift, and the prediction is a constant.

    ``Output.features`` are the mean of the stream before the gate, and the mean of each other's part of the shift.

    Args:
        dims: ``{m: d_m}``; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        beta: β, the longest shift, in lengths of the vector that it shifts. The paper tunes it; 1 is the released
            default.
        dropout: after the gate, while training (released code).
        head_dropout: before the last layer, and inside the small transformer, while training.
        hidden: width of the stream where no text encoder splits.
        layers: of the small transformer.
        heads: its attention heads; divides ``hidden``.
        text_encoder: reads ``text`` as token ids.

    Raises:
        ValueError: what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        beta: float = 1.0,
        dropout: float = 0.5,
        head_dropout: float = 0.1,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dims = checked_dims(dict(dims), text_encoder)
        self.text_encoder = text_encoder
        self.splits = all(hasattr(text_encoder, part) for part in ("embed", "contextualise"))
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.anchor = "text" if "text" in self.dims else next(iter(self.dims))
        self.width = self.dims[self.anchor] if self.splits else hidden
        self.encoders = nn.ModuleDict()
        self.backbone: TransformerEncoder | None = None
        if not self.splits:
            self.encoders[self.anchor] = nn.Linear(self.dims[self.anchor], hidden)
            self.backbone = TransformerEncoder(hidden, hidden, layers=layers, heads=heads, dropout=head_dropout)
        others = {name: dim for name, dim in self.dims.items() if name != self.anchor}
        self.gate = AdaptationGate(self.width, others, beta=beta, dropout=dropout)
        self.pooler = nn.Linear(self.width, self.width)
        self.drop = nn.Dropout(head_dropout)
        self.head = nn.Linear(self.width, outputs)

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: Sequence [B, T_m, d_m]}``, the anchor's as the gate meets it; the others of the batch as they are."""
        text: Any = self.text_encoder
        read: Callable[[Tensor, Tensor], Tensor] | None = text.embed if self.splits else text
        found = sequences(batch, self.dims, self.normaliser, read)
        if self.anchor in self.encoders and self.anchor in found:
            values, mask = found[self.anchor]
            found[self.anchor] = Sequence(self.encoders[self.anchor](values), mask).cleared()
        return found

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Any of the modalities to a prediction."""
        some = next(iter(encoded.values()))
        rows = len(some.mask)
        nothing = Sequence(some.values.new_zeros(rows, 1, self.width), some.mask.new_zeros(rows, 1))
        stream = encoded.get(self.anchor, nothing)
        others = {name: encoded[name] for name in self.dims if name in encoded and name != self.anchor}
        shifted, parts = self.gate(stream, others)
        logits = self.head(self.drop(self.pooler(self._read(shifted)).tanh()))
        terms = {self.anchor: stream.values, **parts}
        features = {
            name: masked_mean(terms[name], stream.mask) if name in terms else nothing.values[:, 0] for name in self.dims
        }
        return Output(squeezed(logits), None, features)

    def _read(self, stream: Sequence) -> Tensor:
        if self.backbone is None:
            text: Any = self.text_encoder
            first: Tensor = text.contextualise(stream.values, stream.mask)[:, 0]
            return first
        out = self.backbone(stream)
        return masked_mean(out.values, out.mask)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: the text encoder (or what stands in for it), and each other modality's part of the gate.

        A frozen text encoder has nothing to train: text is then balanced by the pooling head.
        """
        check_stage(stage)
        groups: dict[str, list[nn.Parameter]] = {}
        for name in self.dims:
            if name == self.anchor:
                parts = [self.encoders, self.backbone, self.text_encoder]
                own = [p for part in parts if part is not None for p in part.parameters()]
                groups[name] = own if any(p.requires_grad for p in own) else list(self.pooler.parameters())
            else:
                groups[name] = [*self.gate.gates[name].parameters(), *self.gate.shifts[name].parameters()]
        return Modalities(**groups)
