"""GLoMo: the whole of each modality guides how its details are fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import VectorMoE, cv_squared
from equipoise.models._glomo import Encoded, Encoder, Guided, Plain, StreamTrunk, TextTrunk
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output

Representations = Literal["both", "global", "local"]
Fusion = Literal["guided", "sum", "concat", "attention", "multiply"]
Guide = Literal["global", "local", "attention", "mlp"]


class GLoMo(nn.Module):
    r"""GLoMo, which mixes local representations by experts and fuses modalities by the weight of their whole.

    From [GLoMo: Global-Local Modal Fusion for Multimodal Sentiment
    Analysis](https://doi.org/10.1145/3664647.3681527) (Zhuang et al., ACM MM 2024).

    $$
    \begin{aligned}
    X^g_t &= \mathrm{FF}(\mathrm{CLS}^{-1}), &
    X^l_t &= \mathrm{AdaMaxPool}_n(\mathrm{Conv1D}([\mathrm{BERT}^{-1}, \mathrm{BERT}^{-2}])) \\
    X^g_m &= \max \mathrm{TE}(\mathrm{Conv1D}(U_m)), &
    X^l_m &= \mathrm{AdaMaxPool}_n(\mathrm{TE}(\mathrm{Conv1D}(U_m))), \; m \in \{a, v\} \\
    \hat X^l_m &= \textstyle\sum_i G(X^l_m)_i E_i(X^l_m), &
    Z &= \mathrm{TransformerEncoder}([X^g_t, \dots, \hat X^l_v]) \\
    Z_m &= \mathrm{MLP}([Z^g_m; Z^l_m]), &
    W_r, Z_r &= \mathrm{ATTN}([Z^r_t, Z^r_a, Z^r_v]), \; r \in \{g, l\} \\
    Z_1 &= \mathrm{MLP}([Z_g; Z_l]), \quad Z_2 = \textstyle\sum_m W_{g,m} Z_m, &
    \hat y &= \mathrm{MLP}([Z_1; Z_2])
    \end{aligned}
    $$

    - $X^g, X^l$: one global and n local representations; the local ones of a modality are concatenated, ``[B, n d]``.
    - $G, E$: the noisy top-k gate and its experts (:class:`equipoise.layers.VectorMoE`).
    - $W_g$: attention over the modalities' global representations, which weights the mixup of $Z_m$.
    - `losses`: $\omega (\mathrm{CV}(\mathrm{importance})^2 + \mathrm{CV}(\mathrm{load})^2)$ of each modality's gate
      (Eq. 7), with the load of Shazeer et al. 2017 and variances divided by s. They are statistics of a batch.

    Taken from the released code where the paper is silent: each MLP is one linear layer; Conv1D has 3 taps and no bias;
    TE is pre-norm with sinusoidal positions, on inputs times $\sqrt d$; the fusion's encoder is post-norm with 2048
    hidden units and no positions; attention is $\mathrm{softmax}(d^{-1/2} W \mathrm{relu}(W' [z_t; z_a; z_v]))$.
    Against the released code: its experts combine as $\log \sum G \exp E$, not as Eq. 6 (``combine="logsumexp"``); its
    five dropout rates, .1 to .5, are one here; it lets padding into convolutions, attention and maxima. Chosen here:
    the gate starts at random, not at zero.

    The two last layers of text pass the convolution one by one, so that the end of the one does not touch the start of
    the other wherever padding ends. Text *features*, or a text encoder without ``last_layers``, have one layer. For
    features the mean over real frames stands in for [CLS], for not all of them have one.

    Modalities: any number. One that a sample lacks takes no part in the fusion's encoder, $W_r$ or $Z_2$, nor in the
    load; its representations are zeros. ATTN over one modality is that modality.

    Args:
        dims: ``{m: d_m}``; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: d. The default is MOSI's; 192 for MOSEI, 112 for UR-FUNNY, 160 for MUStARD, 256 for CHERMA.
        layers: of TE; 4 for MOSI, 3 for MOSEI, UR-FUNNY and MUStARD, 7 for CHERMA.
        heads: attention heads (released code); divides ``hidden``.
        pieces: n, local representations of a modality.
        experts: s; or of each modality by its name (Fig. 3b), where one with fewer than k uses all of its own.
        top_k: k, experts that a sample passes through.
        fusion_layers: of the fusion's transformer encoder.
        feed_forward: hidden units in each of those layers.
        dropout: while training.
        moe_weight: ω.
        combine: ``"sum"`` (Eq. 6) or ``"logsumexp"``.
        moe: False makes the experts one linear layer ("MLP_M" of Table 4).
        representations: ``"global"`` or ``"local"`` alone, where the other is left out of every concatenation.
        fusion: what stands in for the whole global-guided module: ``"sum"``, ``"concat"``, ``"attention"`` ("ATTN_F")
            or ``"multiply"`` of all representations, then one linear layer.
        guide: what weights the mixup: ``"global"`` attention, ``"local"`` ("ReAt_G"), an ``"attention"`` of its own
            ("ATTN_G"), or ``"mlp"``, a linear layer on all $Z_m$ ("MLP_G"). Where only local representations are
            there, ``"global"`` is local.
        text_encoder: reads ``text`` as token ids, such as :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: an unknown choice, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 48,
        layers: int = 4,
        heads: int = 16,
        pieces: int = 3,
        experts: int | Mapping[str, int] = 3,
        top_k: int = 2,
        fusion_layers: int = 2,
        feed_forward: int = 2048,
        dropout: float = 0.3,
        moe_weight: float = 1e-2,
        combine: Literal["sum", "logsumexp"] = "sum",
        moe: bool = True,
        representations: Representations = "both",
        fusion: Fusion = "guided",
        guide: Guide = "global",
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _one_of("representations", representations, ("both", "global", "local"))
        _one_of("fusion", fusion, ("guided", "sum", "concat", "attention", "multiply"))
        _one_of("guide", guide, ("global", "local", "attention", "mlp"))
        if pieces < 1 or moe_weight < 0:
            raise ValueError(
                "Parameter `pieces` should be at least 1 and `moe_weight` non-negative. "
                f"Found `pieces = {pieces}`, `moe_weight = {moe_weight}`."
            )
        if guide == "local" and representations == "global":
            raise ValueError('Parameter `guide = "local"` needs local representations, which are left out.')
        if guide != "global" and fusion != "guided":
            raise ValueError(f'Parameter `guide` needs `fusion = "guided"`. Found `fusion = {fusion!r}`.')
        if heads < 1 or hidden % heads:
            raise ValueError(f"Parameter `heads` should divide `hidden = {hidden}`. Found `heads = {heads}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.moe_weight = moe_weight
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        whole, local = representations != "local", representations != "global"
        self.encoders = nn.ModuleDict()
        for name, dim in self.dims.items():
            mixer: VectorMoE | nn.Linear | None = None
            if local and moe:
                number, k = _gate(experts, top_k, name)
                mixer = VectorMoE(pieces * hidden, hidden, experts=number, top_k=k, combine=combine)
            elif local:
                mixer = nn.Linear(pieces * hidden, hidden)
            trunk: TextTrunk | StreamTrunk
            if name == "text":
                trunk = TextTrunk(dim, hidden, pieces, whole=whole, local=local, first=text_encoder is not None)
            else:
                trunk = StreamTrunk(dim, hidden, pieces, layers=layers, heads=heads, dropout=dropout)
            self.encoders[name] = Encoder(trunk, mixer, whole=whole)
        count, kinds = len(self.dims), whole + local
        self.fusion: Guided | Plain
        if fusion == "guided":
            self.fusion = Guided(
                hidden, count, kinds, dropout, guide=guide, heads=heads, layers=fusion_layers, hidden=feed_forward
            )
        else:
            self.fusion = Plain(hidden, count, kinds, dropout, kind=fusion)
        self.head = nn.Linear(self.fusion.dim, outputs)

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Each modality that the batch holds; the others are absent."""
        text = None if self.text_encoder is None else self._read
        found = sequences(batch, self.dims, self.normaliser, text)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def _read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The text encoder's last two layers side by side, where it gives two."""
        last = getattr(self.text_encoder, "last_layers", None)
        if last is not None:
            return torch.cat(last(tokens, mask, 2), dim=-1)
        assert self.text_encoder is not None
        vectors: Tensor = self.text_encoder(tokens, mask)
        return vectors

    def fuse(self, encoded: Mapping[str, Encoded]) -> Output:
        """Any of the modalities to a prediction; an absent one is one that every sample lacks."""
        some = next(iter(encoded.values()))
        absent = Encoded(*(torch.zeros_like(part) for part in some))
        parts = [encoded.get(name, absent) for name in self.dims]
        kinds = [torch.stack(kind, dim=1) for kind in zip(*((p.whole, p.local) for p in parts), strict=True)]
        present = torch.stack([part.present for part in parts], dim=1)
        fused = self.fusion([kind for kind in kinds if kind.shape[-1]], present)
        features = {name: torch.cat([p.whole, p.local], dim=-1) for name, p in zip(self.dims, parts, strict=True)}
        extra: dict[str, Tensor] = {}
        for name, part in encoded.items():
            if part.gates.shape[-1]:
                extra |= {f"gates/{name}": part.gates, f"load/{name}": part.load}
        return Output(squeezed(self.head(fused)), None, features, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``moe/<m>``: each gate's imbalance, weighted by ω (Eq. 7); nothing without experts."""
        found: dict[str, Tensor] = {}
        for name in self.dims:
            if f"gates/{name}" in output.extra:
                importance, load = (_totals(output.extra[f"{what}/{name}"]) for what in ("gates", "load"))
                found[f"moe/{name}"] = self.moe_weight * (cv_squared(importance) + cv_squared(load))
        return found

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: ``"encoders"``, each modality's encoder and experts, with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


def _totals(x: Tensor) -> Tensor:
    """Sums over the batch, in float32 at least: squares of differences of sums lose what bfloat16 rounds off."""
    return x.sum(dim=0, dtype=torch.promote_types(x.dtype, torch.float32))


def _gate(experts: int | Mapping[str, int], top_k: int, name: str) -> tuple[int, int]:
    """s and k of a modality."""
    if isinstance(experts, int):
        return experts, top_k
    if name not in experts:
        raise ValueError(f"Parameter `experts` should name every modality. Found none for {name!r}.")
    return experts[name], min(top_k, experts[name])


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"Parameter `{name}` should be one of {', '.join(known)}. Found `{name} = {value!r}`.")
