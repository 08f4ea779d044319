"""The parts of MMIM: Gaussian estimators, the entropy of what they estimate, and contrastive predictors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from equipoise.balancers._ranks import rows_of_all_ranks
from equipoise.layers import Sequence

_RIDGE = 1e-5  # keeps a covariance invertible where features hardly vary


class FirstVector(nn.Module):
    """The first vector of a sequence, [CLS] of a text encoder; it has no parameters."""

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, d]`` to one frame, ``[B, 1, d]``; a sample without real frames has none after it either."""
        return Sequence(x.values[:, :1], x.mask.any(dim=1, keepdim=True)).cleared()


class Gaussian(nn.Module):
    """The density q(y|x), normal with a diagonal covariance; mean and log variance are perceptrons of x."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(dim, out), nn.ReLU(), nn.Linear(out, out))
        self.log_variance = nn.Sequential(nn.Linear(dim, out), nn.ReLU(), nn.Linear(out, out))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` ``[B, dim]``, ``y`` ``[B, out]`` to log q(y|x) ``[B]``."""
        log_variance: Tensor = self.log_variance(x).tanh()
        squares: Tensor = (y - self.mean(x)).square() * (-log_variance).exp()
        return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(dim=-1)

    def held(self, x: Tensor, y: Tensor) -> Tensor:
        """The same number, with a gradient for x and y and none for the estimator's own parameters."""
        constants = {name: parameter.detach() for name, parameter in self.named_parameters()}
        density: Tensor = functional_call(self, constants, (x, y))
        return density


class Entropy(nn.Module):
    """Entropy of features that are normal within each component, from this batch and a memory of recent samples.

    Attributes:
        projection: ``[width, dim]``, drawn once; covariances are taken of the projected features.
        kept: ``[components, size, width]``, the memory, a ring for each component.
        seen: ``[components]``, how many samples of each component the memory was given so far.
    """

    def __init__(self, dim: int, *, components: int, size: int) -> None:
        super().__init__()
        width = max(1, dim // 4)
        self.projection: Tensor
        self.kept: Tensor
        self.seen: Tensor
        self.register_buffer("projection", nn.init.xavier_normal_(torch.empty(width, dim)))
        self.register_buffer("kept", torch.zeros(components, size, width))
        self.register_buffer("seen", torch.zeros(components, dtype=torch.long))

    def forward(self, y: Tensor, component: Tensor) -> Tensor | None:
        """Half the log determinant of each component's covariance, averaged over all components.

        Args:
            y: ``[n, dim]``.
            component: ``[n]``, index of each sample's component; -1 for none.

        Returns:
            ``[]``, with a gradient for ``y``; None where no component of these samples has more of them, remembered
            ones included, than the projection has dimensions
        """
        projected = self._projected(y)
        size, width = self.kept.shape[1:]
        terms: list[Tensor] = []
        for index in _components(component):
            remembered = self.kept[index, : min(int(self.seen[index]), size)]
            samples = torch.cat([remembered, projected[component == index]])
            if len(samples) > width:
                centred = samples - samples.mean(dim=0)
                ridge = _RIDGE * torch.eye(width, dtype=y.dtype, device=y.device)
                covariance = centred.T @ centred / len(samples) + ridge
                terms.append(0.5 * (torch.logdet(covariance) + width * math.log(2 * math.pi * math.e)))
        return torch.stack(terms).sum() / len(self.kept) if terms else None

    @torch.no_grad()
    def remember(self, y: Tensor, component: Tensor) -> None:
        """Take samples into the memory, in place of the oldest of their component: those of all ranks, on each of them.

        Every rank of a distributed run has to call it equally often, without samples if need be.
        """
        rows = rows_of_all_ranks(torch.cat([self._projected(y), component.unsqueeze(1).to(y.dtype)], dim=1))
        size = self.kept.shape[1]
        component = rows[:, -1].long()
        for index in _components(component):
            samples = rows[component == index, :-1]
            order = self.seen[index] + torch.arange(len(samples), device=samples.device)
            self.kept[index, order[-size:] % size] = samples[-size:]
            self.seen[index] += len(samples)

    def _projected(self, y: Tensor) -> Tensor:
        return (y @ self.projection.T).tanh()


def _components(component: Tensor) -> list[int]:
    return sorted({index for index in component.tolist() if index >= 0})


def contrast(z: Tensor, guess: Tensor) -> Tensor:
    """How much less a row of ``z`` resembles its own guess than all guesses of the batch, ``[n, d]`` twice to ``[]``.

    Rows are scaled to length 1. One row has nothing to be told from, and the loss is 0.

    >>> z = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> contrast(z, z)
    tensor(0.3133)
    """
    scores = F.normalize(z, dim=1) @ F.normalize(guess, dim=1).T
    return (scores.logsumexp(dim=1) - scores.diagonal()).mean()
