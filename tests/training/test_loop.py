from __future__ import annotations

import csv
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.balancers import AGM, AGS, MSES, OGMGE
from equipoise.core import Balancer, Chain, Step
from equipoise.data import Dataset
from equipoise.models import AGSSMoE, LateFusion
from equipoise.training.evaluate import evaluate
from equipoise.training.loop import FitResult, fit

Make = Callable[..., LateFusion]
ONE_STEP: dict[str, Any] = {
    "epochs": 1, "batch_size": 42, "optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "clip": None
}  # fmt: skip


def train(dataset: Dataset, model: nn.Module, **settings: Any) -> FitResult:
    return fit(model, train=dataset.split("train"), valid=dataset.split("valid"), **settings)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_close(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], atol: float = 1e-6, rtol: float = 1e-5
) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=rtol)


def gradients(model: LateFusion, dataset: Dataset, unimodal_weight: float = 0.0) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the whole training split, by hand."""
    batch = dataset.split("train").batch(range(42))
    output = model(batch)
    loss = F.l1_loss(output.logits, batch.target)
    for logits in output.unimodal.values():
        loss = loss + unimodal_weight * F.l1_loss(logits, batch.target)
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), found


@pytest.mark.parametrize("unimodal_weight", [0.0, 0.5])
def test_a_step_is_gradient_descent_by_hand(
    dataset: Dataset, make_model: Make, tmp_path: Path, unimodal_weight: float
) -> None:
    model = make_model()
    loss, slopes = gradients(model, dataset, unimodal_weight)
    expected = {name: p.detach() - 0.1 * slopes[name] for name, p in model.named_parameters() if name in slopes}
    expected = {name: value.clone() for name, value in expected.items()}
    train(dataset, model, unimodal_weight=unimodal_weight, run_dir=tmp_path, **ONE_STEP)
    assert_close(dict(model.named_parameters()), expected)
    (row,) = rows_of(tmp_path / "steps.csv")
    assert float(row["loss"]) == pytest.approx(loss, rel=1e-5)
    for name, encoder in model.encoders.items():
        own = [slopes[f"encoders.{name}.{key}"] for key, _ in encoder.named_parameters()]
        norm = math.sqrt(sum(float(g.square().sum()) for g in own) / len(own))
        assert float(row[f"norm/{name}"]) == pytest.approx(norm, rel=1e-4)


def balancer(name: str, model: LateFusion) -> Balancer | None:
    modalities = model.modalities()
    if name == "ags":
        return AGS(modalities, alpha=0.5)
    if name == "ogm_ge":
        return OGMGE(modalities, alpha=0.5)
    return AGM(modalities, alpha=0.5, lag=True) if name == "agm" else None


@pytest.mark.parametrize("name", ["plain", "ags", "ogm_ge", "agm"])
def test_micro_batches_of_unequal_size_equal_the_whole_batch(dataset: Dataset, make_model: Make, name: str) -> None:
    whole, parts = make_model(), make_model()
    train(dataset, whole, balancer=balancer(name, whole), **ONE_STEP)
    train(dataset, parts, balancer=balancer(name, parts), **{**ONE_STEP, "batch_size": 16}, accumulate=3)
    assert_close(weights(parts), weights(whole))


class Shout(Balancer):
    """Multiplies all gradients, to see what comes after."""

    def modulate(self) -> None:
        super().modulate()
        for name in self.modalities:
            for gradient in self.modalities.gradients(name):
                gradient.mul_(1e6)


def test_clipping_comes_after_the_balancer(dataset: Dataset, make_model: Make, tmp_path: Path) -> None:
    model, plain = make_model(), make_model()
    before = weights(model)
    train(dataset, plain, run_dir=tmp_path / "plain", **ONE_STEP)
    settings = {**ONE_STEP, "clip": 0.5}
    train(dataset, model, balancer=Shout(model.modalities()), run_dir=tmp_path / "shout", **settings)
    moved = torch.cat([(weights(model)[name] - before[name]).flatten() for name in before])
    assert moved.norm().item() == pytest.approx(0.1 * 0.5, rel=1e-3)
    # ... and the recorded norms are those that the loss gave, before the balancer.
    for name in model.dims:
        found = [rows_of(tmp_path / run / "steps.csv")[0][f"norm/{name}"] for run in ("plain", "shout")]
        assert found[0] == found[1]


def test_the_epoch_that_validation_chose_is_what_is_left(dataset: Dataset, make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    result = train(dataset, model, epochs=8, lr=0.3, batch_size=8, run_dir=tmp_path)
    rows = rows_of(tmp_path / "metrics.csv")
    errors = [float(row["valid/mae"]) for row in rows]
    assert result.best_epoch == 1 + min(range(8), key=errors.__getitem__)
    assert result.best_epoch < 8, "choose a learning rate at which the last epoch is not the best"
    assert (
        evaluate(model, dataset.split("valid"), quiet=True).metrics["mae"]
        == min(errors)
        == result.best_row["valid/mae"]
    )


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_counts_from_the_best_epoch(dataset: Dataset, make_model: Make, tmp_path: Path, patience: int) -> None:
    settings: dict[str, Any] = {"epochs": 8, "lr": 0.3, "batch_size": 8}
    train(dataset, make_model(), run_dir=tmp_path, **settings)
    best, expected = (math.inf, 0), 8
    for epoch, row in enumerate(rows_of(tmp_path / "metrics.csv"), start=1):
        best = min(best, (float(row["valid/mae"]), epoch))
        if epoch - best[1] == patience:
            expected = epoch
            break
    assert (expected < 8) == (patience == 1), "choose settings that stop for one patience and not for the other"
    stopped = train(dataset, make_model(), patience=patience, **settings)
    assert (stopped.epochs, stopped.best_epoch) == (expected, best[1])


def test_ties_go_to_the_lower_loss(classes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LateFusion(dims={name: info.dim for name, info in classes.manifest.modalities.items()}, outputs=3, hidden=4)
    result = train(classes, model, epochs=6, lr=1e-3, run_dir=tmp_path)
    rows = rows_of(tmp_path / "metrics.csv")
    ranks = [(float(row["valid/accuracy"]), -float(row["valid_loss"])) for row in rows]
    assert len({accuracy for accuracy, _ in ranks}) < len(ranks), "choose settings that tie"
    assert result.best_epoch == 1 + max(range(6), key=ranks.__getitem__)


def test_no_test_split_can_come_in(dataset: Dataset, make_model: Make) -> None:
    assert not [name for name in inspect.signature(fit).parameters if "test" in name]
    test, valid, rest = dataset.split("test"), dataset.split("valid"), dataset.split("train")
    for first, second in ((rest, test), (test, valid)):
        with pytest.raises(ValueError, match="should never see the split 'test'"):
            fit(make_model(), train=first, valid=second)


def test_what_an_observer_does_changes_nothing(dataset: Dataset, make_model: Make) -> None:
    seen: list[int] = []

    def observe(epoch: int, model: nn.Module) -> str:
        seen.append(epoch)
        torch.manual_seed(7)
        evaluate(model, dataset.split("test"), quiet=True)
        return "stop"

    alone, watched = make_model(dropout=0.5), make_model(dropout=0.5)
    train(dataset, alone, epochs=3, batch_size=16)
    train(dataset, watched, epochs=3, batch_size=16, observer=observe)
    assert seen == [1, 2, 3]
    assert_close(weights(watched), weights(alone), atol=0, rtol=0)


class Listener(Balancer):
    """Notes what the end of an epoch is told."""

    needs = frozenset({"unimodal", "predict"})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.heard: list[dict[str, Any]] = []

    def end_epoch(self, *, train: Any = (), val: Any = ()) -> None:
        super().end_epoch()
        for step in val:
            assert step.logits is not None
            assert step.predict is not None
            alone = step.predict(frozenset({"text"}))
            self.heard.append({"rows": len(step.target), "loss": step.loss.item(), "graph": alone.requires_grad})


def test_a_balancer_hears_of_validation_without_gradients(dataset: Dataset, make_model: Make, tmp_path: Path) -> None:
    model = make_model(dropout=0.5)
    listener = Listener(model.modalities())
    train(dataset, model, balancer=listener, epochs=2, batch_size=4, run_dir=tmp_path)
    assert [(one["rows"], one["graph"]) for one in listener.heard] == [(4, False), (2, False)] * 2
    for epoch, row in enumerate(rows_of(tmp_path / "metrics.csv")):
        mean = sum(one["rows"] * one["loss"] for one in listener.heard[2 * epoch : 2 * epoch + 2]) / 6
        assert float(row["valid_loss"]) == pytest.approx(mean, rel=1e-5)


def test_steps_and_epochs_are_recorded(dataset: Dataset, make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    chain = Chain(AGS(model.modalities(), alpha=1.0), AGS(model.modalities("heads"), alpha=0.5, from_epoch=1))
    train(dataset, model, balancer=chain, epochs=2, batch_size=20, scheduler="linear", run_dir=tmp_path, trace_every=2)
    steps, epochs = rows_of(tmp_path / "steps.csv"), rows_of(tmp_path / "metrics.csv")
    assert [(row["step"], row["epoch"]) for row in steps] == [(str(i + 1), str(i // 3 + 1)) for i in range(6)]
    assert [float(row["lr"]) for row in steps] == pytest.approx([1e-3 * (1 - i / 6) for i in range(6)])
    for epoch, row in enumerate(epochs):
        part = steps[3 * epoch : 3 * epoch + 3]
        sizes = [20, 20, 2]  # the loader keeps the odd batch last
        mean = sum(float(one["loss"]) * size for one, size in zip(part, sizes, strict=True)) / 42
        assert float(row["train_loss"]) == pytest.approx(mean)
        assert float(row["factor/audio"]) == pytest.approx(sum(float(one["factor/audio"]) for one in part) / 3)
        assert float(row["norm/text"]) == pytest.approx((float(part[0]["norm/text"]) + float(part[2]["norm/text"])) / 2)
        assert part[1]["norm/text"] == ""
    assert {row["1/factor/text"] for row in steps[:3]} == {""}
    assert all(0 < float(row["1/factor/text"]) <= 1 for row in steps[3:])


def test_tensorboard_tells_the_same(dataset: Dataset, make_model: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(dataset, make_model(), epochs=2, batch_size=20, run_dir=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for table, kind, column in (("steps.csv", "step", "norm/text"), ("metrics.csv", "epoch", "valid/mae")):
        found = [(event.step, event.value) for event in events.Scalars(f"{kind}/{column}")]
        rows = [row for row in rows_of(tmp_path / table) if row[column]]
        expected = [(int(row["step"]), pytest.approx(float(row[column]))) for row in rows]
        assert expected
        assert found == expected


def test_a_modality_alone_trains_and_others_stay_unread(dataset: Dataset) -> None:
    torch.manual_seed(0)
    model = LateFusion(dims={"audio": 5}, hidden=4, encoder="mean")
    result = train(dataset, model, modalities=["audio"], epochs=2)
    assert {key for key in result.best_row if key.startswith("valid/audio")}
    assert not [key for key in result.best_row if "text" in key or key.startswith("norm/")]


def test_half_precision_stays_near(dataset: Dataset, make_model: Make) -> None:
    full, half = make_model(), make_model()
    train(dataset, full, **ONE_STEP)
    train(dataset, half, balancer=AGM(half.modalities(), alpha=0.0), precision="bf16", **ONE_STEP)
    assert_close(weights(half), weights(full), atol=2e-3, rtol=0)
    assert any(not torch.equal(weights(half)[name], value) for name, value in weights(full).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "acc2_pm"}, "`select` should be one of mae"),
        ({"select": "accuracy"}, "`select` should be one of mae"),
        ({"loss": "cross_entropy"}, r"`loss` should be one of \['l1', 'mse'\] for regression"),
        ({"precision": "fp16"}, "needs a GPU" if not torch.cuda.is_available() else "`precision`"),
        (
            {"lr": 1e30, "clip": None, "optimizer": "sgd", "batch_size": 8},
            "Training diverged: the loss is (nan|inf) at step",
        ),
    ],
)
def test_what_cannot_work_is_told_in_one_line(
    dataset: Dataset, make_model: Make, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        train(dataset, make_model(), epochs=3, **settings)
    assert "\n" not in str(error.value)


def test_heads_that_are_not_there_are_missed_before_training(dataset: Dataset) -> None:
    dims = {name: info.dim for name, info in dataset.manifest.modalities.items()}
    model = AGSSMoE(dims=dims, hidden=4, heads=2, layers=1)
    steps: list[int] = []
    with pytest.raises(ValueError, match="`unimodal_weight` needs a model with unimodal heads"):
        train(dataset, model, unimodal_weight=1.0, progress=lambda step, *_: steps.append(step))
    with pytest.raises(ValueError, match="MSES needs `unimodal`"):
        train(dataset, model, balancer=MSES(model.modalities()), progress=lambda step, *_: steps.append(step))
    assert steps == []


def test_step_is_what_balancers_are_promised(dataset: Dataset, make_model: Make) -> None:
    from equipoise.training.losses import LOSSES
    from equipoise.training.steps import make_step

    model = make_model().train()
    model.normaliser.fit("text", torch.full((6,), 3.0), torch.full((6,), 2.0))
    batch = dataset.split("train").batch(range(5))
    step: Step = make_step(model, batch, LOSSES["l1"], needs={"predict"})
    assert step.predict is not None
    assert model.training
    model.eval()
    whole = model(batch).logits
    torch.testing.assert_close(step.predict(frozenset(model.dims)), model.fuse(model.encode(batch)).logits)
    # Muted text is the mean of text, which standardises to zeros: what the encoder says to zeros, whatever the frames.
    neutral = model.normaliser.neutral(batch.muted())
    muted = model.encode(neutral)
    expected = model.fuse({**model.encode(batch), "text": muted["text"].expand(5, -1)}).logits
    torch.testing.assert_close(step.predict(frozenset({"audio", "vision"})), expected)
    assert not torch.allclose(expected, whole)
