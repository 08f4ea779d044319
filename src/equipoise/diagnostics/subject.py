"""What a diagnosis looks at: a model as a function of which sample each modality comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from equipoise.data import Split
from equipoise.diagnostics._nested import joined, leaves, picked, tensors, trimmed, width, zeros
from equipoise.diagnostics.scores import Metric, check_metric, points

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mix = Mapping[str, Ints | None]
Progress = Callable[[int, int], None]
Task = Literal["regression", "classification"]

_NUMBERS = 2**21  # encoded numbers fused at once, so that long sequences come in small batches


@dataclass(frozen=True)
class Subject:
    """A model on N samples, each modality of which may be taken from another sample, or be absent.

    Attributes:
        modalities: at least one name.
        target: ``[N]`` or ``[N, R]`` values, or ``[N]`` class numbers.
        task: ``"regression"`` or ``"classification"``.
        answer: ``{m: [n] sample numbers, or None where the modality is absent}``, every modality named, to outputs
            ``[n]`` or ``[n, R]`` (regression) or logits ``[n, C]``. All absent asks for no sample: one row is answered.
        metric: of the score; see :func:`equipoise.diagnostics.scores.points`. None for ``accuracy`` or ``r2``.
        ids: of the samples.

    Raises:
        ValueError: modalities, targets, ids or metric that do not fit together.
    """

    modalities: tuple[str, ...]
    target: npt.NDArray[Any]
    task: Task
    answer: Callable[[Mix], Floats]
    metric: Metric | None = None
    ids: list[str] | None = None
    _known: dict[frozenset[str], Floats] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"Parameter `modalities` should be one or more names. Found {self.modalities}.")
        if not len(self.target) or (self.ids is not None and len(self.ids) != len(self.target)):
            found = f"{len(self.target)} targets and {'no' if self.ids is None else len(self.ids)} ids"
            raise ValueError(f"Parameters `target` and `ids` should hold one entry a sample. Found {found}.")
        object.__setattr__(self, "metric", check_metric(self.metric, self.task))

    def __len__(self) -> int:
        return len(self.target)

    def mixed(self, mix: Mix) -> Floats:
        """Outputs for a mix; modalities that it doesn't name are absent."""
        return self.answer({name: mix.get(name) for name in self.modalities})

    def predictions(self, kept: Iterable[str] | None = None) -> Floats:
        """Outputs ``[N]``, ``[N, R]`` or ``[N, C]`` from the kept modalities (None for all), asked for once.

        Raises:
            ValueError: a modality that the subject does not have.
        """
        names = frozenset(self.modalities if kept is None else kept)
        if unknown := sorted(names - set(self.modalities)):
            raise ValueError(f"Parameter `kept` should name some of {', '.join(self.modalities)}. Found {unknown}.")
        if names not in self._known:
            own = np.arange(len(self))
            found = self.mixed(dict.fromkeys(names, own))
            self._known[names] = found if names else np.broadcast_to(found[:1], (len(self), *found.shape[1:]))
        return self._known[names]

    def points_of(self, outputs: Floats, rows: Ints | None = None) -> Floats:
        """What each sample adds to the score: ``[n]``, whose mean is the score of these outputs.

        Args:
            outputs: as ``answer`` gives them.
            rows: ``[n]``, the samples whose targets they are compared with; None for all in order.
        """
        assert self.metric is not None
        return points(self.metric, outputs, self.target, rows)

    def points(self, kept: Iterable[str] | None = None) -> Floats:
        """``[N]``, whose mean is :meth:`score`."""
        return self.points_of(self.predictions(kept))

    def score(self, kept: Iterable[str] | None = None) -> float:
        """The metric from the kept modalities (None for all); higher is better."""
        return float(self.points(kept).mean())


@torch.no_grad()
def of_model(
    model: nn.Module,
    split: Split,
    modalities: Sequence[str] | None = None,
    *,
    metric: Metric | None = None,
    batch_size: int = 1024,
    progress: Progress | None = None,
) -> Subject:
    """A model of ours on a split. Each modality is encoded once; every mix is then a matter of the fusion alone.

    An absent modality is one frame of neutral input, zeros after the model's normaliser, as in training where a
    balancer asks for a subset (AGM's muting). A sample whose modality is missing in the data keeps that as it is.

    Args:
        model: exposes ``encode`` and ``fuse``; each modality's representation may depend on that modality alone, and a
            sample's on that sample. Put in evaluation mode whenever it is asked, and back.
        split: the samples.
        modalities: those to use; None for all that split and model have in common.
        metric: of the score.
        batch_size: most samples encoded or fused at once.
        progress: told of batches encoded, and of how many there are.

    Raises:
        ValueError: an empty split, or a modality that split or model do not have.
    """
    net = cast(Any, model)
    names = tuple(split.modalities if modalities is None else modalities)
    if not len(split) or not set(names) <= set(split.modalities):
        have = f"{len(split)} samples of {', '.join(split.modalities)}"
        raise ValueError(f"Parameter `split` should have samples of {', '.join(names)}. Found {have}.")
    lengths = {name: split.lengths(name) for name in names}
    device = next(model.parameters()).device
    order = np.argsort(np.sum(list(lengths.values()), axis=0), kind="stable")
    size = min(batch_size, 256)
    parts: dict[str, list[Any]] = {}
    with _evaluating(model):
        for start in range(0, len(order), size):
            batch = split.batch(order[start : start + size], names).to(device)
            for name, encoded in net.encode(batch).items():
                parts.setdefault(name, []).append(encoded)
            if progress is not None:
                progress(start // size + 1, -(-len(order) // size))
        muted = split.batch([0], names).to(device).muted()
        if (normaliser := getattr(model, "normaliser", None)) is not None:
            muted = normaliser.neutral(muted)
        for name, encoded in net.encode(muted).items():
            parts[name].append(encoded)
    if modalities is not None and (unread := sorted(set(names) - set(parts))):
        raise ValueError(f"Parameter `modalities` should name what the model reads. It does not read {unread}.")
    names = tuple(name for name in names if name in parts)
    back = torch.from_numpy(np.argsort(np.append(order, len(order)))).to(device)
    stored = {name: picked(joined(parts.pop(name)), back) for name in names}  # the last row is the muted one

    def answer(mix: Mix) -> Floats:
        count = _count(mix)
        silent = np.full(count, len(split))
        chosen = {name: silent if mix[name] is None else np.asarray(mix[name]) for name in names}
        long = np.sum([np.append(lengths[name], 1)[chosen[name]] for name in names], axis=0)
        by_length = np.argsort(long, kind="stable")
        step = max(1, min(batch_size, _NUMBERS // max(1, sum(width(stored[name]) for name in names))))
        found: list[Tensor] = []
        with torch.no_grad(), _evaluating(model):
            for start in range(0, count, step):
                piece = by_length[start : start + step]
                picks = {name: torch.from_numpy(rows[piece]).to(device) for name, rows in chosen.items()}
                fused = net.fuse({name: trimmed(picked(stored[name], rows)) for name, rows in picks.items()})
                found.append(fused.logits.double().cpu())
        return cast(Floats, torch.cat(found)[torch.from_numpy(np.argsort(by_length))].numpy())

    return Subject(names, np.asarray(split.targets), split.manifest.task, answer, metric, split.ids())


def of_function(
    predict: Callable[[dict[str, Any], frozenset[str]], Any],
    inputs: Mapping[str, Any],
    target: npt.ArrayLike | Tensor,
    *,
    task: Task,
    metric: Metric | None = None,
    ids: Sequence[str] | None = None,
    batch_size: int = 256,
) -> Subject:
    """Any model at all, as a function of its inputs.

    Args:
        predict: ``({m: rows of its input}, kept)`` to outputs ``[n]`` or ``[n, R]``, or logits ``[n, C]``. Every
            modality is given; one that is not in ``kept`` holds zeros (False in a mask), for a model that knows no
            better way to do without it. It has to be in evaluation mode, and is called without gradients.
        inputs: ``{m: [N, ...]}`` tensors or arrays, or tuples of these (features and a mask, say).
        target: ``[N]`` or ``[N, R]`` values, or ``[N]`` class numbers.
        task: ``"regression"`` or ``"classification"``.
        metric: of the score.
        ids: of the samples.
        batch_size: most samples predicted at once.

    Raises:
        ValueError: inputs and targets that differ in length, or (when asked) outputs of a wrong shape.
    """
    names = tuple(inputs)
    given = {name: tensors(value) for name, value in inputs.items()}
    labels = target.detach().cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
    counts = {name: len(leaf) for name, value in given.items() for leaf in leaves(value)}
    if any(count != len(labels) for count in counts.values()):
        raise ValueError(f"Parameter `inputs` should hold a row for each of {len(labels)} targets. Found {counts}.")

    def answer(mix: Mix) -> Floats:
        count, kept = _count(mix), frozenset(name for name in names if mix[name] is not None)
        chosen = {name: np.zeros(count, np.int64) if mix[name] is None else np.asarray(mix[name]) for name in names}
        found: list[Floats] = []
        for start in range(0, count, batch_size):
            picks = {name: torch.from_numpy(rows[start : start + batch_size]) for name, rows in chosen.items()}
            batch = {name: picked(given[name], rows) for name, rows in picks.items()}
            batch = {name: value if name in kept else zeros(value) for name, value in batch.items()}
            with torch.no_grad():
                said = predict(batch, kept)
            outputs = said.detach().cpu().double().numpy() if isinstance(said, Tensor) else np.asarray(said, np.float64)
            found.append(_shaped(outputs, len(next(iter(picks.values()))), task, labels))
        return np.concatenate(found)

    return Subject(names, labels, task, answer, metric, None if ids is None else list(ids))


def _shaped(outputs: Floats, count: int, task: str, target: npt.NDArray[Any]) -> Floats:
    if task == "regression" and outputs.ndim == 2 and outputs.shape[1] == 1 and target.ndim == 1:
        outputs = outputs[:, 0]
    expected = (count, *target.shape[1:]) if task == "regression" else (count, "C")
    fits = outputs.shape == expected if task == "regression" else outputs.ndim == 2 and len(outputs) == count
    if not fits:
        logits = "; for one logit z give the two columns (0, z)" if task == "classification" else ""
        raise ValueError(f"Parameter `predict` should give {list(expected)}{logits}. Found {list(outputs.shape)}.")
    return outputs


def _count(mix: Mix) -> int:
    counts = {len(rows) for rows in mix.values() if rows is not None}
    if len(counts) > 1:
        raise ValueError(f"Parameter `mix` should name as many samples of each modality. Found {sorted(counts)}.")
    return counts.pop() if counts else 1


class _evaluating:
    """The model in evaluation mode for a while."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.training = [module for module in self.model.modules() if module.training]
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.training = True
