from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric

from equipoise.metrics import classification, multi_regression, sentiment_regression
from equipoise.metrics.stateful import Classification, MultiRegression, SentimentRegression

GENERATOR = torch.Generator().manual_seed(0)
ROWS = 23
REGRESSION = torch.randn(ROWS, generator=GENERATOR), torch.randn(ROWS, generator=GENERATOR).round(decimals=1)
SEVERAL = torch.randn(ROWS, 4, generator=GENERATOR), torch.randn(ROWS, 4, generator=GENERATOR)
CLASSES = torch.randn(ROWS, 3, generator=GENERATOR), torch.arange(ROWS) % 3

CASES: list[Any] = [
    pytest.param(lambda: SentimentRegression(), sentiment_regression, REGRESSION, id="mosi"),
    pytest.param(
        lambda: SentimentRegression(scale="sims"), partial(sentiment_regression, scale="sims"), REGRESSION, id="sims"
    ),
    pytest.param(
        lambda: SentimentRegression(scale="sims", binarise="mosi"),
        partial(sentiment_regression, scale="sims", binarise="mosi"),
        REGRESSION,
        id="sims scored the mosi way",
    ),
    pytest.param(lambda: MultiRegression(), multi_regression, SEVERAL, id="several outputs"),
    pytest.param(lambda: Classification(num_classes=3), classification, CLASSES, id="classification"),
]


def approximately(scores: Any) -> Any:
    # sums taken in another order differ in the last digits
    return {
        name: value if name == "confusion" else pytest.approx(value, abs=1e-12, nan_ok=True)
        for name, value in scores.items()
    }


@pytest.mark.parametrize(("make", "functional", "data"), CASES)
def test_batches_add_up_to_the_functional_form(make: Any, functional: Any, data: tuple[Tensor, Tensor]) -> None:
    metric = make()
    for start in range(0, ROWS, 5):
        metric.update(data[0][start : start + 5], data[1][start : start + 5])
    assert metric.compute() == approximately(functional(*data))


@pytest.mark.parametrize(("make", "functional", "data"), CASES)
def test_forward_gives_the_batch_and_keeps_the_whole(make: Any, functional: Any, data: tuple[Tensor, Tensor]) -> None:
    metric = make()
    assert metric(data[0][:9], data[1][:9]) == approximately(functional(data[0][:9], data[1][:9]))
    assert metric(data[0][9:], data[1][9:]) == approximately(functional(data[0][9:], data[1][9:]))
    assert metric.compute() == approximately(functional(*data))


@pytest.mark.parametrize(("make", "functional", "data"), CASES)
def test_two_metrics_merge(make: Any, functional: Any, data: tuple[Tensor, Tensor]) -> None:
    first, second = make(), make()
    first.update(data[0][:16], data[1][:16])
    second.update(data[0][16:], data[1][16:])
    first.merge_state(second)
    assert first.compute() == approximately(functional(*data))


@pytest.mark.parametrize(("make", "functional", "data"), CASES)
def test_reset_forgets(make: Any, functional: Any, data: tuple[Tensor, Tensor]) -> None:
    metric = make()
    metric.update(*data)
    metric.reset()
    metric.update(data[0][:8], data[1][:8])
    assert metric.compute() == approximately(functional(data[0][:8], data[1][:8]))


def one_rank(rank: int, folder: Path) -> None:
    """Take a share of the rows, unequal on purpose, and write what comes out of the merge."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    metrics: list[tuple[Metric, tuple[Tensor, Tensor]]] = [
        (SentimentRegression(), REGRESSION),
        (MultiRegression(), SEVERAL),
        (Classification(num_classes=3), CLASSES),
    ]
    rows = slice(0, 16) if rank == 0 else slice(16, None)
    scores = []
    try:
        for metric, (preds, target) in metrics:
            metric.update(preds[rows], target[rows])
            scores.append(metric.compute())
    finally:
        torch.distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(scores))


def test_two_processes_with_unequal_shares_compute_the_whole(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=one_rank, args=(1, tmp_path))
    other.start()  # the test itself is rank 0: one slow import less
    try:
        one_rank(0, tmp_path)
        other.join(60)
    finally:
        other.kill()
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    whole = [sentiment_regression(*REGRESSION), multi_regression(*SEVERAL), classification(*CLASSES)]
    assert found[0] == [approximately(scores) for scores in whole]


def test_constant_prediction_warns() -> None:
    metric = SentimentRegression()
    metric.update([0.5, 0.5], [1.0, 2.0])
    with pytest.warns(UserWarning, match="`corr` is NaN"):
        metric.compute()
    several = MultiRegression()
    several.update([[0.5, 1.0], [0.5, 2.0]], [[1.0, 1.0], [2.0, 2.0]])
    with pytest.warns(UserWarning, match="output 0"):
        several.compute()


def test_wrong_number_of_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"`logits` should have shape \[B, 4\]. Found \[23, 3\]"):
        Classification(num_classes=4).update(*CLASSES)
    with pytest.raises(ValueError, match=r"`num_classes` should be 2 or more. Found `num_classes = 1`"):
        Classification(num_classes=1)


def test_functional_forms_do_not_import_torchmetrics() -> None:
    code = "import sys, equipoise.metrics; print(sorted({'torchmetrics', 'scipy', 'sklearn'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
