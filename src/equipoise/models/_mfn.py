"""The parts of MFN, which MFM has as its encoder: a system of LSTMs and a memory that reads their cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.layers import Sequence, aligned, masked_last

T = TypeVar("T", int, float)


class States(NamedTuple):
    """One modality after its LSTM.

    - ``cells``: ``[B, P, h]``, the cell state c at each step; zeros as padding.
    - ``last``: ``[B, h]``, the output at the last real step; zeros where a sample lacks the modality.
    - ``mask``: ``[B, P]`` bool; real steps come first.
    """

    cells: Tensor
    last: Tensor
    mask: Tensor


def resampled(x: Sequence, steps: int) -> Sequence:
    """A sequence of at most ``steps`` real frames: a longer one is averaged over as many equal windows.

    ``[B, T, d]`` to ``[B, min(T, steps), d]``. A sample of no more real frames keeps them, moved to the front. The
    windows are those of :func:`equipoise.layers.aligned`: over real frames only.
    """
    mask = ticks(x.mask, steps)
    return Sequence(aligned(x.cleared(), mask)[0], mask)


def ticks(mask: Tensor, steps: int) -> Tensor:
    """The mask of a resampled sequence, ``[B, T]`` to ``[B, min(T, steps)]``."""
    ranks = torch.arange(min(mask.shape[1], steps), device=mask.device)
    return ranks < mask.sum(dim=1, keepdim=True).clamp(max=steps)


class ViewLSTM(nn.Module):
    """An LSTM that gives its cell states too, from a sequence whose padding is behind."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)

    def forward(self, x: Sequence) -> States:
        """``[B, P, d]``, real frames first."""
        values = self.lstm(x.values)[0]
        # The fused layer keeps its cells to itself. Its outputs give back all gates in two products, and from them the
        # cells are one multiplication and one addition a step.
        weight, recurrent, bias, recurrent_bias = self.lstm.all_weights[0]
        before = F.pad(values[:, :-1], (0, 0, 1, 0))
        gates = F.linear(x.values, weight, bias) + F.linear(before, recurrent, recurrent_bias)
        write, keep, value, _ = gates.chunk(4, dim=-1)
        cell = values.new_zeros(values.shape[0], values.shape[2])
        cells: list[Tensor] = []
        for kept, new in zip(keep.sigmoid().unbind(1), (write.sigmoid() * value.tanh()).unbind(1), strict=True):
            cell = kept * cell + new
            cells.append(cell)
        return States(Sequence(torch.stack(cells, dim=1), x.mask).cleared().values, masked_last(values, x.mask), x.mask)


class MemoryFusion(nn.Module):
    """The delta-memory attention and the multi-view gated memory; the equations are :class:`equipoise.models.MFN`'s.

    Args:
        widths: ``{m: h_m}`` of the LSTMs
        memory: width of the memory u
        attention_hidden: hidden units of the attention network
        proposal_hidden: hidden units of the network of the update
        retain_hidden: hidden units of the network of the retain gate
        update_hidden: hidden units of the network of the update gate
        dropout: on each of these hidden layers, while training
        delta: False shows attention the cells of one step alone, not of the step before too
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        memory: int,
        attention_hidden: int,
        proposal_hidden: int,
        retain_hidden: int,
        update_hidden: int,
        dropout: float,
        delta: bool = True,
    ) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.memory = memory
        self.delta = delta
        self.seen = (1 + delta) * sum(self.widths.values())
        self.dim = sum(self.widths.values()) + memory
        self.attention = _network(self.seen, attention_hidden, self.seen, dropout)
        self.proposal = _network(self.seen, proposal_hidden, memory, dropout)
        self.gates_hidden = [retain_hidden, update_hidden]
        self.gates = nn.Linear(self.seen + memory, sum(self.gates_hidden))
        self.drop = nn.Dropout(dropout)
        self.retain = nn.Linear(retain_hidden, memory)
        self.update = nn.Linear(update_hidden, memory)

    def forward(self, views: Mapping[str, States]) -> tuple[dict[str, Tensor], Tensor]:
        """``({m: [B, h_m]}, [B, memory])``: each LSTM's last output and the last memory; zeros for who is absent."""
        some = next(iter(views.values()))
        rows = len(some.mask)
        found = {
            name: views[name]
            if name in views
            else States(
                some.cells.new_zeros(rows, 1, width), some.last.new_zeros(rows, width), some.mask.new_zeros(rows, 1)
            )
            for name, width in self.widths.items()
        }
        cells, real = on_one_clock(found.values())
        seen = torch.cat([F.pad(cells[:, :-1], (0, 0, 1, 0)), cells], dim=-1) if self.delta else cells
        attended = self.attention(seen).softmax(dim=-1) * seen
        return {name: view.last for name, view in found.items()}, self._remember(attended, real)

    def _remember(self, attended: Tensor, real: Tensor) -> Tensor:
        proposals = self.proposal(attended).tanh()
        # Only what depends on the memory itself is left to the loop.
        from_cells, from_memory = torch.split(self.gates.weight, [self.seen, self.memory], dim=1)
        hidden = F.linear(attended, from_cells, self.gates.bias)
        memory = attended.new_zeros(len(attended), self.memory)
        for known, proposal, now in zip(
            hidden.unbind(1), proposals.unbind(1), real.unsqueeze(-1).unbind(1), strict=True
        ):
            both = self.drop((known + F.linear(memory, from_memory)).relu())
            retain, update = torch.split(both, self.gates_hidden, dim=1)
            new = self.retain(retain).sigmoid() * memory + self.update(update).sigmoid() * proposal
            memory = torch.where(now, new, memory)
        return memory


def on_one_clock(views: Iterable[States]) -> tuple[Tensor, Tensor]:
    """All cells side by side at common steps, ``[B, T, sum of h_m]``, and which of the steps are real, ``[B, T]``.

    A sample has as many steps as its longest stream, n. At step r a stream of L steps shows the cell that it has
    reached by then, at ceil((r + 1) L / n) - 1: its own r-th where all are of one length. A stream without steps shows
    zeros.
    """
    views = list(views)
    counts = [view.mask.sum(dim=1, keepdim=True) for view in views]
    longest = torch.stack(counts).amax(dim=0)
    ranks = torch.arange(max(view.mask.shape[1] for view in views), device=longest.device)
    shown: list[Tensor] = []
    for view, count in zip(views, counts, strict=True):
        reached = -(-(ranks + 1) * count // longest.clamp(min=1)) - 1
        index = reached.clamp(min=0, max=view.mask.shape[1] - 1).unsqueeze(-1)
        shown.append(view.cells.gather(1, index.expand(-1, -1, view.cells.shape[-1])))
    return torch.cat(shown, dim=-1), ranks < longest


def by_modality(
    name: str, given: T | Mapping[str, T] | None, dims: Iterable[str], published: Mapping[str, T], other: T
) -> dict[str, T]:
    """One value a modality: the same for all, by name, or (None) the published ones with ``other`` for the rest.

    Raises:
        ValueError: a modality without a value.
    """
    if given is None:
        return {m: published.get(m, other) for m in dims}
    if not isinstance(given, Mapping):
        return dict.fromkeys(dims, given)
    missing = [m for m in dims if m not in given]
    if missing:
        raise ValueError(f"Parameter `{name}` should have a value for {missing[0]!r}. Found {dict(given)}.")
    return {m: given[m] for m in dims}


def positive(**sizes: int) -> None:
    """Raises ValueError for the first size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"Parameter `{name}` should be at least 1. Found `{name} = {size}`.")


def _network(dim: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out))
