from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.builders import BUILDS, DIMS, Build
from torch import Tensor

from equipoise.core import Batch
from equipoise.data import Split, write_dataset
from equipoise.diagnostics import subject as module
from equipoise.diagnostics.subject import Mix, Subject, of_function, of_model
from equipoise.models import LateFusion
from equipoise.training.evaluate import predict
from equipoise.training.steps import subset_predict

SUBSETS = [frozenset(kept) for size in range(4) for kept in combinations(DIMS, size)]
N = 11


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Sequences of unequal lengths; sample 3 lacks audio."""
    random = np.random.default_rng(0)
    lengths = {name: random.integers(1, 9, size=N + 2) for name in DIMS}
    lengths["audio"][3] = 0
    frames = {name: [random.normal(size=(n, DIMS[name])) + 2 for n in lengths[name]] for name in DIMS}
    return write_dataset(
        tmp_path_factory.mktemp("data") / "small",
        name="small",
        source="test",
        synthetic=True,
        task="regression",
        modalities=frames,
        labels=random.normal(size=N + 2),
        ids=[f"clip {i}" for i in range(N + 2)],
        splits=["test"] * N + ["train", "valid"],
    ).split("test")


def built(build: Build, split: Split, **given: Any) -> Any:
    torch.manual_seed(0)
    model = build(**given)
    for name in model.normaliser.dims:
        model.normaliser.fit(name, *(torch.from_numpy(x).float() for x in split.statistics(name)))
    return model.train()


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_subsets_and_mixes_are_what_the_model_says_of_such_batches(
    build: Build, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(build, split)
    monkeypatch.setattr(module, "_NUMBERS", 3000)  # several pieces
    subject = of_model(model, split, batch_size=4)
    assert model.training
    assert subject.modalities == tuple(DIMS)
    whole = split.batch(range(N))
    orders = {name: np.random.default_rng(k).integers(N, size=17) for k, name in enumerate(DIMS)}
    found = {kept: subject.predictions(kept) for kept in SUBSETS}
    mixed = subject.mixed(orders)
    assert model.training
    model.eval()
    with torch.no_grad():
        said = subset_predict(model, whole, model.encode(whole))
        for kept in SUBSETS:
            np.testing.assert_allclose(found[kept], said(kept), atol=2e-6)
        crossed = Batch(
            {name: x[orders[name]] for name, x in whole.inputs.items()},
            {name: x[orders[name]] for name, x in whole.masks.items()},
            whole.target[orders["text"]],
            whole.index[orders["text"]],
        )
        np.testing.assert_allclose(mixed, model(crossed).logits, atol=2e-6)


def test_a_model_of_ours_scores_as_its_evaluation(split: Split) -> None:
    model = LateFusion(dims=DIMS, hidden=4)
    subject = of_model(model, split)
    error = (predict(model, split).logits - torch.from_numpy(split.targets)).square().mean()
    assert subject.score() == pytest.approx(1 - float(error) / split.targets.var(), rel=1e-5)
    assert subject.points().shape == (N,)
    assert subject.ids == split.ids()
    assert (subject.metric, subject.task) == ("r2", "regression")


def test_modalities_that_one_side_lacks(split: Split) -> None:
    model = LateFusion(dims={"text": 6, "audio": 3}, hidden=4)
    assert of_model(model, split).modalities == ("text", "audio")
    assert of_model(model, split, ["audio"]).modalities == ("audio",)
    with pytest.raises(ValueError, match=r"does not read \['vision'\]"):
        of_model(model, split, ["text", "vision"])
    with pytest.raises(ValueError, match=r"11 samples of text, audio, vision"):
        of_model(model, split, ["smell"])


def test_each_subset_is_asked_for_once_and_progress_is_told(split: Split) -> None:
    told: list[tuple[int, int]] = []
    subject = of_model(LateFusion(dims=DIMS, hidden=4), split, batch_size=4, progress=lambda *x: told.append(x))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert subject.predictions(["text"]) is subject.predictions(("text",))
    assert np.ptp(subject.predictions([])) == 0


def test_a_foreign_model_is_asked_in_batches_with_zeros_for_what_is_absent() -> None:
    asked: list[tuple[int, list[str]]] = []

    def said(inputs: dict[str, Any], kept: frozenset[str]) -> Tensor:
        values, mask = inputs["sound"]
        asked.append((len(mask), sorted(kept)))
        mean = (values * mask[..., None]).sum((1, 2)) / mask.sum(1).clamp(min=1)
        outputs: Tensor = torch.stack([mean, inputs["word"] * 10.0], dim=1)
        return outputs

    values = torch.tensor([[[1.0], [3.0]], [[5.0], [9.0]], [[7.0], [7.0]]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    subject = of_function(
        said,
        {"sound": (values, mask.bool()), "word": np.array([1, 2, 0])},
        torch.tensor([1, 1, 0]),
        task="classification",
        batch_size=2,
    )
    np.testing.assert_array_equal(subject.predictions(), [[2, 10], [5, 20], [7, 0]])
    assert asked == [(2, ["sound", "word"]), (1, ["sound", "word"])]
    np.testing.assert_array_equal(subject.predictions(["sound"]), [[2, 0], [5, 0], [7, 0]])
    np.testing.assert_array_equal(subject.predictions([]), np.zeros((3, 2)))
    assert asked[-1] == (1, [])
    mixed = subject.mixed({"sound": np.array([2, 0]), "word": np.array([0, 1])})
    np.testing.assert_array_equal(mixed, [[7, 10], [2, 20]])
    assert subject.score() == 1.0
    assert subject.score(["sound"]) == pytest.approx(1 / 3)


def test_outputs_of_a_foreign_model_have_to_fit() -> None:
    given = {"word": torch.arange(3.0)}
    column = of_function(lambda x, kept: x["word"][:, None], given, [0.0, 1.0, 2.0], task="regression")
    assert column.score() == 1.0
    flat = of_function(lambda x, kept: x["word"], given, [0, 1, 1], task="classification")
    with pytest.raises(ValueError, match=r"should give \[3, 'C'\]; for one logit z .* Found \[3\]"):
        flat.predictions()
    with pytest.raises(ValueError, match=r"each of 2 targets. Found {'word': 3}"):
        of_function(lambda x, kept: x["word"], given, [0, 1], task="classification")


def test_a_subject_refuses_what_does_not_fit() -> None:
    def answer(mix: Mix) -> Any:
        return np.zeros(2)

    subject = Subject(("a", "b"), np.array([0.0, 1.0]), "regression", answer)
    with pytest.raises(ValueError, match=r"should name some of a, b. Found \['c'\]"):
        subject.predictions(["c"])
    with pytest.raises(ValueError, match="Parameter `modalities`"):
        Subject(("a", "a"), np.zeros(2), "regression", answer)
    with pytest.raises(ValueError, match="2 targets and 1 ids"):
        Subject(("a",), np.zeros(2), "regression", answer, ids=["x"])
    with pytest.raises(ValueError, match="Parameter `metric`"):
        Subject(("a",), np.zeros(2), "regression", answer, "accuracy")


def test_a_mix_names_as_many_samples_of_each(split: Split) -> None:
    subject = of_model(LateFusion(dims=DIMS, hidden=4), split)
    with pytest.raises(ValueError, match=r"Found \[2, 3\]"):
        subject.mixed({"text": np.arange(2), "audio": np.arange(3)})
