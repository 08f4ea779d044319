"""A small model with K modalities, its data, and all that one knows of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise import Modalities, Step
from equipoise.core import SubsetPredict

CLASSES = 3


class Toy(nn.Module):
    """Encoders, a fusion that is no sum over modalities, and a head for each modality alone."""

    def __init__(self, names: tuple[str, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Sequential(nn.Linear(3, 4), nn.Tanh()) for name in names})
        self.projections = nn.ModuleDict({name: nn.Linear(4, 5, bias=False) for name in names})
        self.out = nn.Linear(5, CLASSES)
        self.heads = nn.ModuleDict({name: nn.Linear(4, CLASSES) for name in names})
        self.to(dtype)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        total = torch.stack([projection(features[name]) for name, projection in self.projections.items()]).sum(dim=0)
        out: Tensor = self.out(torch.tanh(total))
        return out

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: head(features[name]) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Data:
    inputs: dict[str, Tensor]
    target: Tensor

    def rows(self, start: int, stop: int) -> Data:
        return Data({name: x[start:stop] for name, x in self.inputs.items()}, self.target[start:stop])


def names_of(count: int) -> tuple[str, ...]:
    return ("text", "audio", "vision", "touch")[:count]


def toy(count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    model = Toy(names_of(count), dtype)
    with torch.no_grad():  # unequal modalities, or there would be nothing to balance
        for i, encoder in enumerate(model.encoders.values()):
            for parameter in encoder.parameters():
                parameter.mul_(1 + i)
    return model


def data(count: int, dtype: torch.dtype = torch.float64, rows: int = 8, seed: int = 0) -> Data:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(CLASSES, (rows,), generator=generator)
    hint = F.one_hot(target, CLASSES).to(dtype)
    inputs = {
        name: hint / (1 + i) + torch.randn(rows, 3, generator=generator, dtype=torch.float64).to(dtype)
        for i, name in enumerate(names_of(count))
    }
    return Data(inputs, target)


def step_of(model: Toy, batch: Data, *, weight: float = 1.0, subsets: bool = False) -> Step:
    """Everything that one knows of a micro-batch; ``weight`` multiplies the loss, as accumulation and AMP do."""
    features = model.encode(batch.inputs)
    unimodal = model.unimodal(features)
    logits = model.fuse(features)

    def alone(kept: frozenset[str]) -> Tensor:
        inputs = {name: x if name in kept else torch.zeros_like(x) for name, x in batch.inputs.items()}
        return model.fuse(model.encode(inputs))

    loss = F.cross_entropy(logits, batch.target)
    for output in unimodal.values():
        loss = loss + 0.5 * F.cross_entropy(output, batch.target)
    predict: Callable[[frozenset[str]], Tensor] = alone
    if subsets:
        muted = model.encode({name: torch.zeros_like(x[:1]) for name, x in batch.inputs.items()})
        predict = SubsetPredict(model.fuse, features, muted, module=model)
    return Step(
        loss * weight,
        logits=logits,
        target=batch.target,
        unimodal=unimodal,
        features=features,
        predict=predict,
        criterion=F.cross_entropy,
        teacher={name: 0.5 * x[:, :1].repeat(1, 4) for name, x in batch.inputs.items()},
    )


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def encoders(model: Toy, names: tuple[str, ...]) -> Modalities:
    return Modalities(**{name: model.encoders[name] for name in names})


def parameters(*gradients: float) -> list[nn.Parameter]:
    """Scalars, at 10 each, with these gradients."""
    found = [nn.Parameter(torch.tensor([10.0], dtype=torch.float64)) for _ in gradients]
    for parameter, gradient in zip(found, gradients, strict=True):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    return found


def gradients(modalities: Modalities) -> dict[str, list[float]]:
    """Those of `parameters`, by modality."""
    return {name: [float(g) for g in modalities.gradients(name)] for name in modalities}
