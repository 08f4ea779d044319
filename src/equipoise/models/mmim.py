"""MMIM: what a fusion says about its inputs, and they about one another, is part of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._mmim import Entropy, FirstVector, Gaussian, contrast
from equipoise.models._subnetworks import LastState, with_zeros
from equipoise.models.output import Output


class MMIM(nn.Module):
    r"""MultiModal InfoMax: mutual information of modalities, and of the fusion with each of them, is maximised.

    From [Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for Multimodal Sentiment
    Analysis](https://aclanthology.org/2021.emnlp-main.723) (Han et al., EMNLP 2021).

    $$
    z_t = \mathrm{BERT}(x_t)_{[CLS]}, \quad z_m = W_m \, \mathrm{LSTM}(x_m), \; m \in \{a, v\}, \qquad
    Z = \tanh\big(W_2 \tanh(W_1 [z_t, z_a, z_v])\big), \quad \hat y = W_3 Z
    $$
    $$
    I(x; y) \ge I_{BA}(x, y) = \mathbb{E}\big[\log q_\theta(y \mid x)\big] + H(y), \qquad
    q_\theta(y \mid x) = \mathcal{N}\big(y;\; \mu_\theta(x), \mathrm{diag}\, \sigma_\theta^2(x)\big)
    $$
    $$
    H(y) = \tfrac{1}{C} \sum_{c=1}^{C} \tfrac12 \log\det\big(2 \pi e\, \Sigma_c\big), \qquad
    L_{CPC}(m) = -\operatorname{mean}_i \log \frac{\exp\big(\bar z_m^i \cdot \bar g_m(Z^i)\big)}
    {\sum_j \exp\big(\bar z_m^i \cdot \bar g_m(Z^j)\big)}
    $$
    $$
    L = L_{task} - \beta \sum_{(x, y)} I_{BA}(x, y) + \alpha \sum_m L_{CPC}(m), \qquad
    L_{lld} = - \sum_{(x, y)} \mathbb{E}\big[\log q_\theta(y \mid x)\big]
    $$

    - $(x, y)$: text with each other modality, $(z_t, z_a)$ and $(z_t, z_v)$. A model without text has its first
      modality in that place.
    - $\theta$: a perceptron of one hidden layer for $\mu$, another for $\log \sigma^2$. It learns from $L_{lld}$ alone,
      on features that are held constant; encoders learn from $I_{BA}$ alone, through estimators that are held constant.
    - $\Sigma_c$: covariance of $\tanh(P y)$ over the samples of component c, in this batch and in a memory of the last
      ``memory`` of each component; P is random and fixed. Components are positive and negative labels
      (C = 2; a label of ``threshold`` belongs to neither), or the classes. One with too few samples for a covariance of
      full rank adds nothing yet.
    - $g_m$: a linear layer from the fusion to modality m; the bar scales to length 1.

    **One stage in place of two.** The released code passes the training set twice an epoch: first the estimators alone
    learn from $L_{lld}$ (half of the set on MOSEI), with an optimizer of their own, then all else from $L$. Here both
    happen in each step, of one optimizer and one pass of the model. The gradients are those of either stage, but the
    estimators meet features of this step and not of the epoch before, they share weight decay and (where gradients are
    clipped by their norm) the scale of all others, and the memory does not start again each epoch.

    Any number of modalities. One that a sample lacks is zeros in the fusion and takes that sample out of each loss that
    needs it. A batch of one has $L_{CPC} = 0$. Where several ranks train, each remembers the samples of all.

    Where we differ from the released code: its likelihood has no $\log \sigma^2$, so that a variance without bound
    would be its best; here the density is whole, and $\log \sigma^2$ passes a tanh, which the code has as an argument
    and does not use. Its P is never trained either. Its covariances have no ridge (here $10^{-5}$), and its memory
    is one batch. Its LSTMs have no dropout, nor have ours. We could read the paper's abstract and its released code,
    not its equations: the sum over j is the code's.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of the LSTM and of $z_m$, of every modality but text.
        text_hidden: the same for text where no text encoder is trained with the model: its features pass an LSTM too.
        fusion_hidden: width of $Z$.
        dropout: on $[z_t, z_a, z_v]$, while training.
        alpha: weight of $L_{CPC}$; 0 leaves out its layers.
        beta: weight of $I_{BA}$; 0 leaves out the estimators.
        memory: samples that each component of a pair remembers.
        threshold: what parts positive labels of a regression from negative ones.
        all_pairs: also the pairs without text, such as (audio, vision).
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`; $z_t$ is its first vector.

    Raises:
        ValueError: a negative weight, a memory below 1, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 16,
        text_hidden: int = 128,
        fusion_hidden: int = 128,
        dropout: float = 0.1,
        alpha: float = 0.1,
        beta: float = 0.1,
        memory: int = 16,
        threshold: float = 0.0,
        all_pairs: bool = False,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ValueError(
                f"Parameters `alpha` and `beta` should be non-negative. Found `alpha = {alpha}`, `beta = {beta}`."
            )
        if memory < 1:
            raise ValueError(f"Parameter `memory` should be at least 1. Found `memory = {memory}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.alpha, self.beta, self.threshold = alpha, beta, threshold
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict()
        self.widths: dict[str, int] = {}
        for name, dim in self.dims.items():
            trained = name == "text" and text_encoder is not None and _trains(text_encoder)
            width = dim if trained else text_hidden if name == "text" else hidden
            self.widths[name] = width
            self.encoders[name] = (
                FirstVector() if trained else LastState(dim, width, width, layers=1, relu=False, dropout=0.0)
            )
        self.drop = nn.Dropout(dropout)
        self.fusion = nn.Sequential(
            nn.Linear(sum(self.widths.values()), fusion_hidden),
            nn.Tanh(),
            nn.Linear(fusion_hidden, fusion_hidden),
            nn.Tanh(),
        )
        self.head = nn.Linear(fusion_hidden, outputs)
        self.predictors = nn.ModuleDict(
            {name: nn.Linear(fusion_hidden, width) for name, width in self.widths.items()} if alpha else {}
        )
        self.pairs = _pairs(list(self.dims), all_pairs) if beta else {}
        self.estimators = nn.ModuleDict()
        self.entropies = nn.ModuleDict()
        for name, (x, y) in self.pairs.items():
            self.estimators[name] = Gaussian(self.widths[x], self.widths[y])
            self.entropies[name] = Entropy(self.widths[y], components=max(2, outputs), size=memory)
        for part in (self.encoders, self.fusion, self.head, self.predictors, self.estimators):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_normal_(parameter)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: z_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence).values[:, 0] for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; ``extra`` holds the fusion Z ``[B, d]``."""
        features = with_zeros(encoded, self.widths)
        fusion = self.fusion(self.drop(torch.cat(list(features.values()), dim=1)))
        return Output(squeezed(self.head(fusion)), None, features, {"fusion": fusion})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``likelihood``, for the estimators alone; ``bound``, weighted by β, and ``cpc``, by α, for the model.

        Those that no sample of the batch can give are left out. While training, the batch enters the memory.
        """
        dtype = self.head.weight.dtype
        nobody = torch.zeros(len(batch), dtype=torch.bool, device=batch.target.device)
        present = {name: batch.masks[name].any(dim=1) if name in batch.masks else nobody for name in self.dims}
        z = {name: output.features[name].to(dtype) for name in self.dims}
        found: dict[str, list[Tensor]] = {"likelihood": [], "bound": [], "cpc": []}
        for name, (x, y) in self.pairs.items():
            both = present[x] & present[y]
            given, wanted, component = z[x][both], z[y][both], self._components(batch.target)[both]
            estimator, entropy = self.estimators[name], self.entropies[name]
            assert isinstance(estimator, Gaussian)
            assert isinstance(entropy, Entropy)
            if len(given):
                found["likelihood"].append(-estimator(given.detach(), wanted.detach()).mean())
                found["bound"].append(-self.beta * estimator.held(given, wanted).mean())
            if (spread := entropy(wanted, component)) is not None:
                found["bound"].append(-self.beta * spread)
            if self.training:
                entropy.remember(wanted, component)
        for name, predictor in self.predictors.items():
            if bool(present[name].any()):
                guess = predictor(output.extra["fusion"].to(dtype)[present[name]])
                found["cpc"].append(self.alpha * contrast(z[name][present[name]], guess))
        return {name: torch.stack(parts).sum() for name, parts in found.items() if parts}

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder, for text the text encoder where it is trained."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)

    def _components(self, target: Tensor) -> Tensor:
        """``[B]``: the class, or 1 and 0 for labels above and below the threshold (their mean, if several); else -1."""
        if not target.is_floating_point():
            return target
        value = target.reshape(len(target), -1).mean(dim=1) - self.threshold
        return torch.where(value == 0, -1, (value > 0).long())


def _pairs(names: list[str], every: bool) -> dict[str, tuple[str, str]]:
    """The pairs (x, y) by name: text, or else the first modality, with each other one; ``every`` pair if asked."""
    names = sorted(names, key=lambda name: name != "text")
    pairs = combinations(names, 2) if every else [(names[0], other) for other in names[1:]]
    return {f"{x}-{y}": (x, y) for x, y in pairs}


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
