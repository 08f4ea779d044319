"""What each step did, kept on the device until someone has to wait anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from equipoise.core import Balancer
from equipoise.training.ranks import sum_over_ranks
from equipoise.training.tracing import Traced, parts_of

COLUMNS = {"factors": "factor"}
"""Columns that are not called as the entry of `Balancer.trace` that they hold."""


@dataclass
class Recorder:
    """Rows of ``steps.csv``, and running totals for the epoch's means.

    Attributes:
        balancer: whose trace is recorded, if there is one.
        traced: columns that only some steps have, as `Tracer.columns` gives them.
        totals: sums over the epoch so far; plain numbers, part of the checkpoint.
    """

    balancer: Balancer | None
    world: int = 1
    totals: dict[str, float] = field(default_factory=dict)
    traced: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _pending: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fix the columns: a balancer that is idle at first still has its own."""
        self._columns: dict[tuple[int, str, int], str] = {}
        taken: set[str] = set()
        for position, part in enumerate(parts_of(self.balancer)):
            for key in part.records:
                for i, name in enumerate(part.modalities):
                    label = f"{COLUMNS.get(key, key)}/{name}"
                    # In a chain the first balancer of a modality has the plain name.
                    label = f"{position}/{label}" if label in taken else label
                    taken.add(label)
                    self._columns[position, key, i] = label

    def record(
        self,
        *,
        step: int,
        epoch: int,
        lr: float,
        rows: int,
        loss: Tensor,
        traced: Traced | None = None,
    ) -> None:
        """Keep one optimizer step; nothing is copied to the host. ``loss`` is this rank's share of the mean."""
        kept: dict[str, Any] = {"step": step, "epoch": epoch, "lr": lr, "rows": rows, "loss": loss}
        traces = [dict(part.trace) for part in parts_of(self.balancer)]
        self._pending.append(kept | {"traces": traces, "traced": traced or {}})

    def flush(self) -> list[dict[str, float | int | None]]:
        """The rows since the last flush, as numbers; they enter the totals.

        Raises:
            ValueError: a loss is NaN or infinite.
        """
        if not self._pending:
            return []
        losses = sum_over_ranks(torch.stack([kept["loss"] for kept in self._pending]), self.world).tolist()
        found = []
        for kept, loss in zip(self._pending, losses, strict=True):
            row: dict[str, float | int | None] = {key: kept[key] for key in ("step", "epoch")}
            row |= {"loss": loss, "lr": kept["lr"]}
            if not math.isfinite(loss):
                raise ValueError(
                    f"Training diverged: the loss is {loss} at step {kept['step']} (epoch {kept['epoch']}). "
                    "Lower `lr` (`train.lr`, `text.lr`), or set `clip`."
                )
            values: dict[str, float | None] = {}
            for lead, names in self.traced.items():
                values |= _named(lead, names, kept["traced"].get(lead))
            row |= values | self._balanced(kept["traces"])
            self._add(row, kept["rows"])
            found.append(row)
        self._pending = []
        return found

    def means(self) -> dict[str, float | None]:
        """The epoch's means: of the loss over samples, of the rest over steps that had a value. Starts a new epoch."""
        totals, self.totals = self.totals, {}
        means: dict[str, float | None] = {"train_loss": totals["loss"] / totals["rows"]}
        columns = [f"{lead}/{name}" for lead, names in self.traced.items() for name in names]
        columns += self._columns.values()
        for column in columns:
            count = totals.get(f"count {column}")
            means[column] = totals[column] / count if count else None
        return means

    def _balanced(self, traces: list[dict[str, Tensor]]) -> dict[str, float | None]:
        kept = [part.records for part in parts_of(self.balancer)]
        numbers = [
            {key: trace[key].tolist() for key in records if key in trace}
            for records, trace in zip(kept, traces, strict=True)
        ]
        return {
            column: float(numbers[position][key][i]) if key in numbers[position] else None
            for (position, key, i), column in self._columns.items()
        }

    def _add(self, row: dict[str, float | int | None], rows: int) -> None:
        def add(name: str, value: float) -> None:
            self.totals[name] = self.totals.get(name, 0.0) + value

        loss = row["loss"]
        assert loss is not None
        add("loss", loss * rows)
        add("rows", rows)
        for name, value in row.items():
            if "/" in name and value is not None and math.isfinite(value):
                add(name, value)
                add(f"count {name}", 1)


def _named(kind: str, names: Sequence[str], values: Tensor | None) -> dict[str, float | None]:
    numbers = [None] * len(names) if values is None else values.tolist()
    return {f"{kind}/{name}": value for name, value in zip(names, numbers, strict=True)}
