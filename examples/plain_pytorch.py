"""A model that knows nothing of equipoise, trained with AGM on three modalities: what has to be added to a loop.

    python examples/plain_pytorch.py

The data are synthetic: three classes, which text shows plainly, audio faintly and vision more faintly still.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import equipoise as eq

NOISE = {"text": 0.5, "audio": 1.5, "vision": 2.0}


class Model(nn.Module):
    """Somebody's model: an encoder a modality, and a fusion that takes them all in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.audio, self.vision = (nn.GRU(8, 16, batch_first=True) for _ in NOISE)
        self.classify = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Class logits ``[B, 3]`` from sequences ``[B, T_m, 8]``."""
        encoded = [self.text(text), self.audio(audio), self.vision(vision)]
        logits: Tensor = self.classify(torch.cat([last[0] for _, last in encoded], dim=1))
        return logits


def draw(rows: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """A batch: the class as a pattern in every frame, under noise."""
    target = torch.randint(3, (rows,), generator=generator)
    pattern = F.one_hot(target, 8).float()[:, None]
    inputs = {name: pattern + sigma * torch.randn(rows, 6, 8, generator=generator) for name, sigma in NOISE.items()}
    return inputs, target


def train(balance: bool, steps: int = 60) -> tuple[Model, eq.Balancer]:
    """The usual loop. What equipoise adds stands at the lines numbered 1 to 4."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    # 1: what is balanced, by module. Fusion and classifier belong to nobody and are left out.
    modalities = eq.Modalities(text=model.text, audio=model.audio, vision=model.vision)
    balancer = eq.AGM(modalities, alpha=1.0 if balance else 0.0)

    for _ in range(steps):
        inputs, target = draw(32, generator)
        logits = model(**inputs)
        loss = F.cross_entropy(logits, target)

        # 2: how to predict without some modalities. A foreign model is run again with zeros in their place; one that
        # can be cut into encoders and fusion is cheaper through equipoise.core.SubsetPredict.
        def predict(kept: frozenset[str], inputs: dict[str, Tensor] = inputs) -> Tensor:
            out: Tensor = model(**{name: x if name in kept else torch.zeros_like(x) for name, x in inputs.items()})
            return out

        # 3: before backward. The value of the loss stays what it was.
        loss = balancer(eq.Step(loss, logits=logits, target=target, predict=predict))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        # 4: after backward, before clipping and the optimizer.
        balancer.modulate()
        optimizer.step()
    return model, balancer


@torch.no_grad()
def accuracy(model: Model, only: str | None = None) -> float:
    """Share of right answers on fresh data, from all modalities or from one with zeros for the others."""
    inputs, target = draw(2000, torch.Generator().manual_seed(1))
    shown = {name: x if only in (None, name) else torch.zeros_like(x) for name, x in inputs.items()}
    return float((model(**shown).argmax(dim=1) == target).float().mean())


def main() -> None:
    """Train with and without, and print what each modality can do by itself."""
    print("accuracy         all    text   audio  vision")
    for title, balance in [("plain", False), ("balanced", True)]:
        model, balancer = train(balance)
        row = [accuracy(model), *(accuracy(model, name) for name in NOISE)]
        print(f"{title:<12}" + "".join(f"{value:8.3f}" for value in row))
    factors = dict(zip(NOISE, balancer.trace["factors"].tolist(), strict=True))
    print("last factors:", ", ".join(f"{name} {factor:.2f}" for name, factor in factors.items()))


if __name__ == "__main__":
    main()
