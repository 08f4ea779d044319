from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from equipoise.data import DataError, Dataset, load, synthetic, utterances
from equipoise.data.truth import bayes_r2

N = 8000
EVEN: dict[str, Any] = {  # three modalities of one kind
    "speed": dict.fromkeys(("text", "audio", "vision"), 1.0),
    "feature_noise": dict.fromkeys(("text", "audio", "vision"), 0.5),
    "dims": dict.fromkeys(("text", "audio", "vision"), 8),
    "lengths": dict.fromkeys(("text", "audio", "vision"), (5, 15)),
}


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.mktemp("synthetic") / "set", n=N, text=True)


def truth(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = data.manifest.extra["truth"]
    return found


def latents(data: Dataset) -> dict[str, np.ndarray]:
    return dict(zip(truth(data)["columns"], data.array("latents").T, strict=True))


def pooled(data: Dataset, modality: str) -> np.ndarray:
    """``[N, d]``: the mean frame of each utterance."""
    ragged = data.ragged(modality)
    rows = np.arange(len(data))
    return np.add.reduceat(ragged.flat(rows), ragged.offsets[:-1]) / ragged.lengths(rows)[:, None]


def held_out_r2(x: np.ndarray, y: np.ndarray) -> float:
    """R² on the second half of least squares fitted on the first."""
    x, half = np.column_stack([x, np.ones(len(x))]), len(x) // 2
    weights = np.linalg.lstsq(x[:half], y[:half], rcond=None)[0]
    return float(1 - np.var(y[half:] - x[half:] @ weights) / np.var(y[half:]))


def quadratic(x: np.ndarray) -> np.ndarray:
    """Features and their products: all that pairs of a modality's features show together."""
    i, j = np.triu_indices(x.shape[1])
    return np.column_stack([x, x[:, i] * x[:, j]])


def test_label_is_made_of_the_latents_in_the_shares_declared(default: Dataset) -> None:
    z = latents(default)
    shares = truth(default)["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    parts = {**z, "synergy": z["sign_text"] * z["sign_audio"]}
    x = np.column_stack([parts[key] for key in shares])
    weights = np.linalg.lstsq(x, default.labels / default.labels.std(), rcond=None)[0]
    for weight, share in zip(weights, shares.values(), strict=True):
        assert weight**2 == pytest.approx(share, abs=0.02)  # two standard errors at this n, and the cut at ±3


def test_latents_are_independent(default: Dataset) -> None:
    z = latents(default)
    x = np.column_stack([z[key] for key in z if key != "score"])
    assert np.abs(np.corrcoef(x.T) - np.eye(x.shape[1])).max() < 4.5 / np.sqrt(N)


def test_best_r2_is_what_oracles_reach(default: Dataset) -> None:
    # Least squares on mean frames is nearly the best estimate of all but the synergy, and nothing beats the best.
    z, best = latents(default), truth(default)["bayes_r2"]
    linear = z["score"] - np.sqrt(truth(default)["shares"]["synergy"]) * z["sign_text"] * z["sign_audio"]
    for subset, expected in best.items():
        kept = subset.split("+")
        x = np.column_stack([pooled(default, name) for name in kept])
        found = held_out_r2(x, z["score"])
        synergy = truth(default)["shares"]["synergy"] * {"text", "audio"}.issubset(kept)
        assert found < expected + 0.03
        assert found > expected - synergy - 0.04
        assert held_out_r2(x, linear) > found - 0.02


def test_best_r2_by_hand() -> None:
    shares = {"alone_a": 0.3, "alone_b": 0.1, "shared": 0.2, "synergy": 0.25, "noise": 0.15}
    clear = bayes_r2(shares, ("a", "b"), {"a": np.array([1e9]), "b": np.array([1e9])})
    assert clear == pytest.approx({"a": 0.5, "b": 0.3, "a+b": 0.85})
    hazy = bayes_r2({**shares, "synergy": 0}, ("a", "b"), {"a": np.array([1.0]), "b": np.array([0.0])})
    assert hazy == pytest.approx({"a": 0.25, "b": 0, "a+b": 0.25})
    # The best guess of a random sign from sign + noise is tanh(precision * observation).
    random = np.random.default_rng(0)
    sign = np.sign(random.standard_normal(400_000))
    guess = np.tanh(0.7 * (sign + random.standard_normal(400_000) / np.sqrt(0.7)))
    told = 1 - np.mean((sign - guess) ** 2)
    one = np.array([0.7])
    pair = bayes_r2({"alone_a": 0, "alone_b": 0, "shared": 0, "synergy": 1}, ("a", "b"), {"a": one, "b": one})
    assert pair["a+b"] == pytest.approx(told**2, abs=0.01)


def test_synergy_shows_in_the_combination_only(tmp_path: Path) -> None:
    nothing = {"text": 0.0, "audio": 0.0, "vision": 0.0}
    data = synthetic(tmp_path / "set", n=N, alone=nothing, shared=0, synergy=0.9, noise=0.1, **EVEN)
    y = latents(data)["score"]
    x = {name: pooled(data, name) for name in data.modalities}
    for name in data.modalities:
        assert held_out_r2(quadratic(x[name]), y) < 0.02
    assert held_out_r2(quadratic(np.column_stack([x["text"], x["vision"]])), y) < 0.02
    assert held_out_r2(quadratic(np.column_stack([x["text"], x["audio"]])), y) > 0.8
    assert truth(data)["bayes_r2"]["text"] == 0
    assert truth(data)["bayes_r2"]["text+audio"] == pytest.approx(0.9, abs=0.01)


def test_a_modality_without_a_share_is_noise(tmp_path: Path) -> None:
    alone = {"text": 0.6, "audio": 0.4, "vision": 0.0}
    data = synthetic(tmp_path / "set", n=N, alone=alone, shared=0, synergy=0, noise=0.2, **EVEN)
    x, y = pooled(data, "vision"), data.labels
    for feature in x.T:
        assert abs(np.corrcoef(feature, y)[0, 1]) < 4 / np.sqrt(N)
    assert held_out_r2(quadratic(x), y) < 0.01
    assert held_out_r2(pooled(data, "audio"), y) > 0.25


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic(tmp_path / name, n=50, seed=seed, text=True)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "manifest.json" in names
    for name in names:
        first = (tmp_path / "a" / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == first
        assert (tmp_path / "c" / name).read_bytes() != first


def test_settings_of_a_modality_leave_the_others_alone(tmp_path: Path) -> None:
    a = synthetic(tmp_path / "a", n=50)
    b = synthetic(tmp_path / "b", n=50, speed={"audio": 1.0}, lengths={"audio": (3, 4)}, dims={"audio": 6})
    assert a.manifest.files["text.npy"] == b.manifest.files["text.npy"]
    assert a.manifest.files["labels.npy"] == b.manifest.files["labels.npy"]
    info = b.manifest.modalities["audio"]
    assert (info.dim, info.shortest, info.longest) == (6, 3, 4)


def test_it_calls_itself_synthetic(default: Dataset) -> None:
    assert (default.manifest.synthetic, default.manifest.source) == (True, "synthetic")
    assert default.manifest.splits == {"train": 5600, "valid": 800, "test": 1600}
    assert load(default.path).verify() == []
    assert (default.manifest.labels.scale, default.manifest.labels.range) == ("mosi", (-3.0, 3.0))
    assert np.mean(np.abs(default.labels) == 3) < 0.02


def test_classes_are_even_intervals_of_the_score(tmp_path: Path) -> None:
    data = synthetic(tmp_path / "set", n=N, task="classification", classes=4)
    assert data.manifest.labels.classes == ("class 0", "class 1", "class 2", "class 3")
    assert np.bincount(data.labels) / N == pytest.approx(0.25, abs=0.02)
    by_score = data.labels[np.argsort(latents(data)["score"])]
    assert (np.diff(by_score) >= 0).all()


def test_transcripts_tell_the_latents_of_the_first_modality(default: Dataset) -> None:
    z, texts = latents(default), default.texts
    assert texts is not None
    words = sorted({word for text in texts for word in text.split()})
    counts = np.array([[text.split().count(word) for word in words[1:]] for text in texts[:4000]], dtype=np.float64)
    assert held_out_r2(counts, z["alone_text"][:4000]) > 0.9
    assert held_out_r2(counts, z["shared"][:4000]) > 0.9
    assert held_out_r2(counts, z["sign_text"][:4000]) > 0.99
    assert held_out_r2(counts, z["alone_audio"][:4000]) < 0.01
    assert len({len(text.split()) for text in texts}) > 10


class SmallGRU(nn.Module):
    """``[B, T, 8]`` to ``[B]``."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.gru(x)[0].mean(1))[:, 0]
        return out


def descend(forward: Callable[[], torch.Tensor], parameters: Iterable[nn.Parameter], steps: int, rate: float) -> float:
    """The loss after some steps of plain gradient descent."""
    values = list(parameters)
    for _ in range(steps):
        gradients = torch.autograd.grad(forward(), values)
        with torch.no_grad():
            for value, gradient in zip(values, gradients, strict=True):
                value.sub_(rate * gradient)
    return forward().item()


@pytest.mark.parametrize(("kind", "steps", "rate"), [("linear", 3, 0.1), ("gru", 12, 0.1)])
def test_a_faster_modality_is_learned_faster(tmp_path: Path, kind: str, steps: int, rate: float) -> None:
    # The same latent, as clear in each: only the speed differs.
    settings = {
        **EVEN,
        "alone": {"text": 0.0, "audio": 0.0, "vision": 0.0},
        "speed": {"text": 1.0, "audio": 0.5, "vision": 0.2},
        "feature_noise": {"text": 0.5, "audio": 0.25, "vision": 0.1},
        "lengths": dict.fromkeys(("text", "audio", "vision"), (8, 8)),
    }
    data = synthetic(tmp_path / "set", n=1000, shared=0.9, synergy=0, noise=0.1, **settings)
    batch = data.split("train").batch(range(700))
    best = [truth(data)["bayes_r2"][name] for name in data.modalities]
    assert max(best) - min(best) < 1e-3
    learned = []
    for name in data.modalities:
        torch.manual_seed(0)
        x = batch.inputs[name]
        model: Any = SmallGRU() if kind == "gru" else nn.Sequential(nn.Linear(8, 1), nn.Flatten(0))
        head = model.head if kind == "gru" else model[0]
        nn.init.zeros_(head.weight)
        given = x if kind == "gru" else x.mean(1)
        loss = descend(
            lambda m=model, g=given: nn.functional.mse_loss(m(g), batch.target),  # type: ignore[misc]
            model.parameters(),
            steps,
            rate,
        )
        learned.append(1 - loss / batch.target.var().item())
    assert learned[0] > 2 * learned[1] > 4 * learned[2], learned
    if kind == "linear":  # the error along a direction of variance v shrinks by 1 - 2 rate v a step
        shrunk = [(1 - 2 * rate * speed**2) ** steps for speed in (1.0, 0.5, 0.2)]
        assert learned == pytest.approx([0.9 * (1 - error**2) for error in shrunk], abs=0.05)


def test_joint_training_starves_the_slow_modalities_of_the_default(default: Dataset) -> None:
    """Branches of one hidden layer, outputs added: what the output of each tells of the label, joint and alone."""
    x = {name: torch.from_numpy(pooled(default, name)[:2000]).float() for name in default.modalities}
    y = torch.from_numpy(default.labels[:2000].copy())

    def told(names: tuple[str, ...], seed: int) -> list[float]:
        torch.manual_seed(seed)
        branches = {
            name: nn.Sequential(nn.Linear(x[name].shape[1], 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
            for name in names
        }
        descend(
            lambda: nn.functional.mse_loss(torch.stack([branches[n](x[n]) for n in names]).sum(0), y),
            nn.ModuleDict(branches).parameters(),
            steps=100,
            rate=0.1,
        )
        return [torch.corrcoef(torch.stack([branches[n](x[n]), y]))[0, 1].item() ** 2 for n in names]

    joint = np.mean([told(default.modalities, seed) for seed in range(5)], axis=0)
    alone = np.mean([[told((name,), seed)[0] for name in default.modalities] for seed in range(5)], axis=0)
    text, audio, vision = joint / alone
    assert text > 0.95
    assert audio < 0.75
    assert vision < 0.75


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 5}, "should be at least 10, 0 and 2"),
        ({"splits": (1, 1, 0)}, "should be at least 3, 0 and 2"),
        ({"splits": (8, 4, 0)}, r"`splits` should hold numbers of at least 1. Found \(8, 4, 0\)"),
        ({"modalities": ("text", "text")}, "distinct"),
        ({"alone": {"smell": 0.5}}, r"`alone` should name modalities \(text, audio, vision\). Found smell"),
        ({"shared": -0.1}, "Share `shared` should be non-negative and finite. Found -0.1"),
        ({"alone": {"text": float("nan")}}, "Share `alone_text` should be non-negative and finite. Found nan"),
        ({"modalities": ("text",)}, "`synergy` should be 0 with a single modality"),
        ({"dims": {"audio": 3}}, "`dims` of at least 4"),
        ({"lengths": {"audio": (5, 2)}}, "`lengths` that rise"),
        ({"speed": {"audio": -1.0}}, "non-negative `speed`"),
        ({"feature_noise": {"audio": 0.0}}, "positive `feature_noise`"),
        ({"modalities": ("a",), "alone": {"a": 0}, "shared": 0, "synergy": 0, "noise": 0}, "not all be 0"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthetic(tmp_path / "set", **settings)
    assert list(tmp_path.iterdir()) == []


def test_any_number_of_modalities(tmp_path: Path) -> None:
    one = synthetic(tmp_path / "one", n=20, modalities=("sensor",), synergy=0)
    assert list(truth(one)["bayes_r2"]) == ["sensor"]
    four = synthetic(tmp_path / "four", n=20, modalities=("text", "audio", "vision", "touch"))
    assert len(truth(four)["bayes_r2"]) == 15
    assert sum(truth(four)["shares"].values()) == pytest.approx(1)


def test_splits_have_the_samples_asked_for_and_sims_labels_are_a_third(tmp_path: Path) -> None:
    mosi = synthetic(tmp_path / "mosi", splits=(7, 2, 3), dataset_name="small")
    assert mosi.manifest.splits == {"train": 7, "valid": 2, "test": 3}
    assert mosi.manifest.name == "small"
    sims = synthetic(tmp_path / "sims", splits=(7, 2, 3), scale="sims")
    assert sims.manifest.labels.range == (-1.0, 1.0)
    np.testing.assert_allclose(3 * sims.labels, mosi.labels, rtol=1e-6)


@pytest.mark.parametrize("dim", [255, 256])  # a square of directions, and those alone that are used
def test_wide_frames_show_the_latents_along_orthonormal_directions(tmp_path: Path, dim: int) -> None:
    n = 30
    settings = {"dims": {"a": dim}, "lengths": {"a": (1, 1)}, "feature_noise": {"a": 1e-6}, "speed": {"a": 1.0}}
    data = synthetic(tmp_path / "set", splits=(n - 2, 1, 1), modalities=("a",), synergy=0, **settings)  # type: ignore[arg-type]
    x = pooled(data, "a")
    z = latents(data)
    shown = np.stack([z["alone_a"], z["shared"], z["sign_a"]], axis=1)
    assert np.linalg.matrix_rank(x, tol=1e-2) == 11  # three latents and eight nuisances
    # What lies orthogonal to the latents' directions is the nuisances', so the directions come out of the span.
    basis = np.linalg.svd(x, full_matrices=False)[2][:11]
    weights = np.linalg.lstsq(x @ basis.T, shown, rcond=None)[0]
    np.testing.assert_allclose(weights.T @ weights, np.eye(3), atol=1e-3)


def test_pieces_of_wide_frames_hold_every_utterance_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utterances, "_VALUES", 16 * 40 * 3)  # three of the default audio utterances at a time, or so
    data = synthetic(tmp_path / "set", splits=(20, 2, 3), feature_noise={"audio": 1e-6}, speed={"audio": 1.0})
    z = latents(data)
    shown = np.stack([z["alone_audio"], z["shared"], z["sign_audio"]], axis=1)
    assert (
        np.abs(shown - pooled(data, "audio") @ np.linalg.lstsq(pooled(data, "audio"), shown, rcond=None)[0]).max()
        < 1e-3
    )
